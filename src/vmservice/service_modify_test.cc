// ModifyResource and InspectVM as clients see them: what waits for whom.
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "vmservice/testing/service_fixture.h"
#include "vmservice/testing/status_matchers.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using chipset::PowerEvent;

class ModifyTest : public ServiceTest {
 protected:
  void End(size_t index, const absl::Status& status = absl::OkStatus()) {
    OnControl([&] { host_.machine().End(index, status); });
  }
  void HeedNoStop() {
    OnControl([&] { host_.machine().heeds_stop = false; });
  }
  bool Waits(size_t index) {
    bool waits = false;
    OnControl([&] { waits = host_.machine().Waits(index); });
    return waits;
  }
  // A change whose deadline passes; returns when the client has been told.
  void SendAndMissDeadline(const wire::ModifyResourceRequest& request, size_t changes_then) {
    bothy::testing::RawPeer peer(Socket());
    ASSERT_TRUE(peer.Send(
        bothy::testing::RequestFrame(1, "ModifyResource", request.SerializeAsString(),
                                     {.service = "vmservice.VM", .timeout_nano = 20'000'000})));
    AwaitChanges(changes_then);
    EXPECT_EQ(peer.ReceiveStatus().code(), StatusCode::kDeadlineExceeded);
  }
};

TEST_F(ModifyTest, NeedsAVmThatIsPausedOrRunning) {
  const auto request = ScsiRequest(wire::ADD, 0);
  EXPECT_EQ(vm_->ModifyResource(request).status().code(), StatusCode::kFailedPrecondition);
  CreateVm();
  auto paused = StartModify(*vm_, request);
  AwaitChanges(1);
  End(0);
  EXPECT_EQ(paused.get(), absl::OkStatus());
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  auto running = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(2);
  End(1);
  EXPECT_EQ(running.get(), absl::OkStatus());
  host_.GuestDoes(PowerEvent::kPowerOff);
  ASSERT_TRUE(vm_->WaitVM({}).ok());
  EXPECT_THAT(vm_->ModifyResource(request).status(),
              Is(StatusCode::kFailedPrecondition, "the VM has halted; TeardownVM frees it"));
}

TEST_F(ModifyTest, BadRequestsNeverReachTheMachine) {
  CreateVm();
  EXPECT_THAT(vm_->ModifyResource(ScsiRequest(wire::ADD, 64)).status(),
              Is(StatusCode::kInvalidArgument, "scsi_disk.lun: 64 is out of range 0..63"));
  AwaitChanges(0);
}

TEST_F(ModifyTest, ErrorsOfTheMachineArriveAsTheyAre) {
  CreateVm();
  auto modify = StartModify(*vm_, ScsiRequest(wire::ADD, 0));
  AwaitChanges(1);
  End(0, absl::DataLossError("scsi_disk.host_path: /disk.vhd: bad checksum at 512"));
  EXPECT_THAT(modify.get(),
              Is(StatusCode::kDataLoss, "scsi_disk.host_path: /disk.vhd: bad checksum at 512"));
}

TEST_F(ModifyTest, AChangeThatWaitsDelaysNobody) {
  CreateVm();
  auto slow = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  ASSERT_TRUE(vm_->PauseVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Paused);
  EXPECT_TRUE(vm_->InspectVM({}).ok());
  auto other = StartModify(*vm_, ScsiRequest(wire::ADD, 1));
  auto same = StartModify(*vm_, ScsiRequest(wire::ADD, 0));
  AwaitChanges(2);
  End(1);
  EXPECT_EQ(other.get(), absl::OkStatus());
  EXPECT_TRUE(Waits(0));
  End(0);
  EXPECT_EQ(slow.get(), absl::OkStatus());
  AwaitChanges(3);
  End(2);
  EXPECT_EQ(same.get(), absl::OkStatus());
}

TEST_F(ModifyTest, KeepsItsPlaceBehindACreation) {
  host_.HoldCreate();
  std::promise<absl::Status> created;
  vm_->CreateVMAsync(Request(), {},
                     [&](const auto& answer) { created.set_value(answer.status()); });
  host_.AwaitCreating();
  auto modify = StartModify(*vm_, ScsiRequest(wire::ADD, 0));
  EXPECT_TRUE(vm_->CapabilitiesVM({}).ok());
  host_.LetCreate();
  EXPECT_EQ(created.get_future().get(), absl::OkStatus());
  AwaitChanges(1);
  End(0);
  EXPECT_EQ(modify.get(), absl::OkStatus());
}

TEST_F(ModifyTest, ATeardownHasAnEjectionGiveUp) {
  CreateVm();
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  auto ejection = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  auto queued = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  EXPECT_TRUE(vm_->TeardownVM({}).ok());
  const std::string why = "the VM has been torn down meanwhile";
  EXPECT_THAT(ejection.get(), Is(StatusCode::kFailedPrecondition, why));
  // Where the other one was at the time, it is a matter of microseconds.
  EXPECT_EQ(queued.get().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.alive(), 0);
  CreateVm();
}

TEST_F(ModifyTest, ATeardownWaitsForWhatIsTooFarOn) {
  CreateVm();
  HeedNoStop();
  auto modify = StartModify(*vm_, ScsiRequest(wire::ADD, 0));
  AwaitChanges(1);
  std::promise<absl::Status> torn_down;
  vm_->TeardownVMAsync({}, {}, [&](const auto& answer) { torn_down.set_value(answer.status()); });
  EXPECT_TRUE(vm_->CapabilitiesVM({}).ok());  // behind it on the same connection
  EXPECT_EQ(host_.alive(), 1);
  End(0);
  EXPECT_EQ(modify.get(), absl::OkStatus());
  EXPECT_EQ(torn_down.get_future().get(), absl::OkStatus());
  EXPECT_EQ(host_.alive(), 0);
}

TEST_F(ModifyTest, QuitHasAnEjectionGiveUp) {
  CreateVm();
  auto ejection = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  EXPECT_TRUE(vm_->Quit({}).ok());
  EXPECT_EQ(ejection.get().code(), StatusCode::kFailedPrecondition);
  quit_.get_future().get();
}

TEST_F(ModifyTest, AServerThatEndsWithoutATeardownDropsWhatIsPending) {
  CreateVm();
  HeedNoStop();
  auto ejection = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  OnControl([this] {
    server_.reset();
    service_.reset();
  });
  EXPECT_FALSE(ejection.get().ok());
  EXPECT_EQ(host_.alive(), 0);
}

TEST_F(ModifyTest, AHaltHasAnEjectionGiveUp) {
  CreateVm();
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  auto ejection = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  host_.GuestDoes(PowerEvent::kTripleFault);
  EXPECT_THAT(ejection.get(),
              Is(StatusCode::kFailedPrecondition, "the VM has halted; TeardownVM frees it"));
  EXPECT_TRUE(vm_->TeardownVM({}).ok());
}

TEST_F(ModifyTest, ADeadlineHasAnEjectionGiveUp) {
  CreateVm();
  SendAndMissDeadline(ScsiRequest(wire::REMOVE, 0), 1);
  auto again = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(2);
  EXPECT_FALSE(Waits(0));
  End(1);
  EXPECT_EQ(again.get(), absl::OkStatus());
}

TEST_F(ModifyTest, AnAdditionAfterItsDeadlineIsTakenBack) {
  CreateVm();
  HeedNoStop();
  SendAndMissDeadline(ScsiRequest(wire::ADD, 5), 1);
  End(0);
  AwaitChanges(2);
  OnControl([&] {
    const RecordingMachine::Change& undo = *host_.machine().changes[1];
    EXPECT_EQ(undo.change, machine::Change::kRemove);
    EXPECT_EQ(undo.scsi->lun, 5U);
  });
  auto again = StartModify(*vm_, ScsiRequest(wire::ADD, 5));
  End(1);
  AwaitChanges(3);
  End(2);
  EXPECT_EQ(again.get(), absl::OkStatus());
}

TEST_F(ModifyTest, AClientThatLeavesTakesItsEjectionWithItAndNothingElse) {
  CreateVm();
  auto leaver = Connect();
  wire::VMClient leaving(*leaver);
  auto theirs = StartModify(leaving, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  auto ours = StartModify(*vm_, ScsiRequest(wire::REMOVE, 1));
  AwaitChanges(2);
  leaver->Close();
  EXPECT_EQ(theirs.get().code(), StatusCode::kUnavailable);
  AwaitConnections(1);
  EXPECT_FALSE(Waits(0));
  EXPECT_TRUE(Waits(1));
  End(1);
  EXPECT_EQ(ours.get(), absl::OkStatus());
}

TEST_F(ModifyTest, ChangesOfManyClientsMeetATeardown) {
  for (int round = 0; round < 10; ++round) {
    CreateVm();
    OnControl([&] {
      host_.machine().at_once =
          [](const RecordingMachine::Change& change) -> std::optional<absl::Status> {
        if (change.change == machine::Change::kAdd) return absl::OkStatus();
        return std::nullopt;
      };
    });
    const auto other_client = Connect();
    wire::VMClient other(*other_client);
    std::vector<std::future<absl::Status>> changes;
    for (uint32_t i = 0; i < 40; ++i) {
      const auto type = i % 3 == 0 ? wire::REMOVE : wire::ADD;
      changes.push_back(StartModify(i % 2 == 0 ? *vm_ : other, ScsiRequest(type, i % 7)));
    }
    EXPECT_TRUE(vm_->TeardownVM({}).ok());
    for (auto& change : changes) {
      const absl::Status status = change.get();
      EXPECT_TRUE(status.ok() || status.code() == StatusCode::kFailedPrecondition) << status;
    }
    EXPECT_EQ(host_.alive(), 0);
  }
}

class InspectTest : public ServiceTest {
 protected:
  absl::StatusOr<std::string> Inspect(const std::string& query, uint32_t levels) {
    wire::InspectVMRequest request;
    request.set_query(query);
    request.set_recursion_limit(levels);
    const auto response = vm_->InspectVM(request);
    if (!response.ok()) return response.status();
    std::string json;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(response->result(), &json).ok());
    return json;
  }
};

TEST_F(InspectTest, ShowsTheLifeCycleAndTheMachine) {
  EXPECT_EQ(*Inspect("", 0), R"({"vm":null})");
  EXPECT_EQ(*Inspect("vm", 0), R"({"state":"none"})");
  CreateVm();
  EXPECT_EQ(*Inspect("vm/state", 0), "\"paused\"");
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  EXPECT_EQ(*Inspect("vm/state", 7), "\"running\"");
  EXPECT_EQ(*Inspect("devices", 0), R"({"count":3})");
  host_.GuestDoes(PowerEvent::kReset);
  ASSERT_TRUE(vm_->WaitVM({}).ok());
  EXPECT_EQ(*Inspect("vm/halt_reason", 0), "\"reset\"");
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  EXPECT_EQ(*Inspect("vm", 0), R"({"state":"none"})");
}

TEST_F(InspectTest, ErrorsNameTheLongestPathThereIs) {
  CreateVm();
  EXPECT_THAT(Inspect("devices/scsi0", 0).status(),
              Is(StatusCode::kNotFound, "query: \"devices\" has no \"scsi0\"; it has count"));
  EXPECT_THAT(
      Inspect("vm/state/x", 0).status(),
      Is(StatusCode::kNotFound, "query: \"vm/state\" is a value, there is no \"x\" below it"));
  EXPECT_EQ(Inspect("a//b", 0).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(InspectTest, CountsWhatIsPending) {
  CreateVm();
  auto change = StartModify(*vm_, ScsiRequest(wire::REMOVE, 0));
  AwaitChanges(1);
  EXPECT_EQ(*Inspect("vm/pending_changes", 0), "1");
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  EXPECT_FALSE(change.get().ok());
}

}  // namespace
}  // namespace bothy::vmservice
