// The service as clients see it: VmService behind a ttrpc server, over real sockets, with machines
// that only pretend.
#include "vmservice/service.h"

#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "ttrpc/testing/frames.h"
#include "vmservice/testing/service_fixture.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using chipset::PowerEvent;
using google::protobuf::Empty;
using ::testing::HasSubstr;

TEST_F(ServiceTest, CapabilitiesListAllSevenResourcesOnce) {
  const auto capabilities = vm_->CapabilitiesVM({});
  ASSERT_TRUE(capabilities.ok()) << capabilities.status();
  std::multiset<int> listed;
  for (const auto& resource : capabilities->supported_resources()) {
    listed.insert(resource.resource());
    const bool scsi = resource.resource() == wire::CapabilitiesVMResponse::Scsi;
    const bool pmem = resource.resource() == wire::CapabilitiesVMResponse::Vpmem;
    const bool nic = resource.resource() == wire::CapabilitiesVMResponse::VMNic;
    EXPECT_EQ(resource.add(), scsi || pmem || nic) << resource.ShortDebugString();
    EXPECT_EQ(resource.remove(), scsi || pmem || nic) << resource.ShortDebugString();
    EXPECT_EQ(resource.update(), scsi || nic) << resource.ShortDebugString();
  }
  EXPECT_EQ(listed, (std::multiset<int>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_THAT(capabilities->supported_guest_os(),
              ::testing::ElementsAre(wire::CapabilitiesVMResponse::Linux));
}

TEST_F(ServiceTest, LifeCycleShowsInProperties) {
  EXPECT_EQ(Properties().state(), wire::Uninitialized);
  CreateVm();
  EXPECT_EQ(Properties().state(), wire::Paused);
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Running);
  ASSERT_TRUE(vm_->PauseVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Paused);
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  EXPECT_EQ(Properties().halt_reason(), "");
  host_.GuestDoes(PowerEvent::kTripleFault);
  ASSERT_TRUE(vm_->WaitVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Halted);
  EXPECT_EQ(Properties().halt_reason(), "triple-fault");
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Uninitialized);
  EXPECT_EQ(Properties().halt_reason(), "");
}

TEST_F(ServiceTest, PropertiesAreThoseAskedFor) {
  CreateVm();
  for (const auto& types :
       {std::vector<wire::PropertiesVMRequest::PropertiesType>{},
        {wire::PropertiesVMRequest::Processor, wire::PropertiesVMRequest::Memory}}) {
    const wire::PropertiesVMResponse all = Properties(types);
    EXPECT_EQ(all.memory_stats().assigned_memory(), 64 * kMiB);
    EXPECT_EQ(all.memory_stats().working_set_bytes(), 3 * kMiB);
    EXPECT_EQ(all.memory_stats().reserved_memory(), 4 * kMiB);
    EXPECT_EQ(all.processor_stats().total_runtime_ns(), 5U);
  }
  const auto memory = Properties({wire::PropertiesVMRequest::Memory});
  EXPECT_TRUE(memory.has_memory_stats());
  EXPECT_FALSE(memory.has_processor_stats());
  EXPECT_EQ(memory.state(), wire::Paused);
  const auto processor = Properties({wire::PropertiesVMRequest::Processor});
  EXPECT_FALSE(processor.has_memory_stats());
  EXPECT_TRUE(processor.has_processor_stats());
  EXPECT_EQ(processor.state(), wire::Paused);
}

TEST_F(ServiceTest, PropertiesAskTheGuestForItsMemory) {
  CreateVm();
  OnControl([this] {
    RecordingMachine& machine = host_.machine();
    machine.on_question = [&machine](const std::function<void()>& done) {
      machine.available_ram_bytes += 2 * kMiB;
      done();
    };
  });
  EXPECT_EQ(Properties().memory_stats().available_memory(), 2 * kMiB);
  EXPECT_EQ(Properties().memory_stats().available_memory(), 4 * kMiB);
  EXPECT_FALSE(Properties({wire::PropertiesVMRequest::Processor}).has_memory_stats());
  EXPECT_EQ(Properties().memory_stats().available_memory(), 6 * kMiB);
}

TEST_F(ServiceTest, PropertiesDoWithoutAGuestThatDoesNotAnswer) {
  CreateVm();
  std::function<void()> late;
  OnControl([&] {
    RecordingMachine& machine = host_.machine();
    machine.available_ram_bytes = 3 * kMiB;
    machine.on_question = [&late](std::function<void()> done) { late = std::move(done); };
  });
  EXPECT_EQ(Properties().memory_stats().available_memory(), 3 * kMiB);
  OnControl([&] { std::exchange(late, nullptr)(); });  // to nobody
  // Whose machine ends meanwhile.
  OnControl([&] {
    host_.machine().on_question = [this](const std::function<void()>&) { service_->Quit(); };
  });
  EXPECT_FALSE(Properties().has_memory_stats());
}

TEST_F(ServiceTest, PropertiesOfNoVmAreItsStateAlone) {
  const auto properties = Properties();
  EXPECT_FALSE(properties.has_memory_stats());
  EXPECT_FALSE(properties.has_processor_stats());
}

TEST_F(ServiceTest, PropertiesThatThereAreNotAreRefused) {
  wire::PropertiesVMRequest request;
  request.add_types(wire::PropertiesVMRequest::Memory);
  request.add_types(static_cast<wire::PropertiesVMRequest::PropertiesType>(7));
  EXPECT_EQ(vm_->PropertiesVM(request).status(),
            absl::InvalidArgumentError("types[1]: 7 is no PropertiesType"));
}

TEST_F(ServiceTest, ErrorsOfTheMachineNameTheirPathInTheRequest) {
  host_.FailCreate(absl::ResourceExhaustedError("memory_config.memory_mb: too many"));
  EXPECT_EQ(vm_->CreateVM(Request()).status(),
            absl::ResourceExhaustedError("config.memory_config.memory_mb: too many"));
  host_.FailCreate(absl::InvalidArgumentError("serial_config.ports[1].socket_path: no"));
  EXPECT_EQ(vm_->CreateVM(Request()).status(),
            absl::InvalidArgumentError("config.serial_config.ports[1].socket_path: no"));
  host_.FailCreate(absl::NotFoundError("devices_config.scsi_disks[3].host_path: no"));
  EXPECT_EQ(vm_->CreateVM(Request()).status(),
            absl::NotFoundError("config.devices_config.scsi_disks[3].host_path: no"));
  // Not everything is about a field.
  host_.FailCreate(absl::FailedPreconditionError("/dev/kvm: no such file"));
  EXPECT_EQ(vm_->CreateVM(Request()).status(),
            absl::FailedPreconditionError("/dev/kvm: no such file"));
  host_.FailCreate(absl::OkStatus());
  CreateVm();
}

TEST_F(ServiceTest, AConfigThatIsRefusedNeverReachesTheHost) {
  wire::CreateVMRequest request = Request();
  request.mutable_config()->mutable_memory_config()->set_memory_mb(0);
  EXPECT_EQ(vm_->CreateVM(request).status(),
            absl::InvalidArgumentError("config.memory_config.memory_mb: must be at least 1"));
  EXPECT_EQ(host_.made(), 0);
  CreateVm();
  EXPECT_EQ(host_.last_config().memory.ram_mib, 64U);
}

TEST_F(ServiceTest, OneVmAtATime) {
  CreateVm();
  EXPECT_EQ(vm_->CreateVM(Request()).status().code(), StatusCode::kAlreadyExists);
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  CreateVm();
}

TEST_F(ServiceTest, UnknownFieldsAreRefusedByEveryMethodThatIsThere) {
  Empty empty;
  empty.GetReflection()->MutableUnknownFields(&empty)->AddVarint(1, 1);
  const std::vector<absl::Status> statuses = {
      vm_->TeardownVM(empty).status(),     vm_->PauseVM(empty).status(),
      vm_->ResumeVM(empty).status(),       vm_->WaitVM(empty).status(),
      vm_->CapabilitiesVM(empty).status(), vm_->Quit(empty).status()};
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("Empty: unknown field 1"));
  }
  wire::CreateVMRequest create = Request();
  create.GetReflection()->MutableUnknownFields(&create)->AddVarint(3, 1);
  EXPECT_EQ(vm_->CreateVM(create).status().code(), StatusCode::kInvalidArgument);
  wire::PropertiesVMRequest properties;
  properties.GetReflection()->MutableUnknownFields(&properties)->AddVarint(3, 1);
  EXPECT_EQ(vm_->PropertiesVM(properties).status().code(), StatusCode::kInvalidArgument);
  wire::InspectVMRequest inspect;
  inspect.GetReflection()->MutableUnknownFields(&inspect)->AddVarint(3, 1);
  EXPECT_EQ(vm_->InspectVM(inspect).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ServiceTest, WhatThisBuildLacksIsUnimplemented) {
  CreateVm();
  wire::ModifyResourceRequest modify;
  modify.mutable_memory()->set_memory_mb(1);
  EXPECT_EQ(vm_->ModifyResource(modify).status().code(), StatusCode::kUnimplemented);
}

TEST_F(ServiceTest, AListenerComesToTheMachine) {
  wire::VMSocketRequest request;
  request.mutable_vsock_listen()->set_port(7);
  request.mutable_vsock_listen()->set_listener_path("/run/agent.sock");
  EXPECT_EQ(vm_->VMSocket(request).status().code(), StatusCode::kFailedPrecondition);
  CreateVm();
  EXPECT_EQ(vm_->VMSocket({}).status().code(), StatusCode::kInvalidArgument);
  OnControl([this] {
    host_.machine().at_once = [](const auto&) { return absl::AlreadyExistsError("port: taken"); };
  });
  const absl::Status taken = vm_->VMSocket(request).status();
  EXPECT_EQ(taken.code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(std::string(taken.message()), "vsock_listen.port: taken");
  OnControl([this] {
    const auto& socket = host_.machine().changes.back()->socket;
    ASSERT_TRUE(socket.has_value());
    EXPECT_EQ(socket->port, 7U);
    EXPECT_EQ(socket->path, "/run/agent.sock");
  });
}

TEST_F(ServiceTest, WaitingForNoVmIsRefused) {
  EXPECT_EQ(vm_->WaitVM({}).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(ServiceTest, AHaltAnswersAllWhoWait) {
  CreateVm();
  const auto other_client = Connect();
  wire::VMClient other(*other_client);
  std::vector<std::future<absl::Status>> waits;
  for (int i = 0; i < 10; ++i) {
    waits.push_back(PendingWait(*vm_));
    waits.push_back(PendingWait(other));
  }
  ASSERT_TRUE(vm_->ResumeVM({}).ok());
  host_.GuestDoes(PowerEvent::kPowerOff);
  for (auto& wait : waits) EXPECT_EQ(wait.get(), absl::OkStatus());
  // Who comes later hears of it at once.
  EXPECT_TRUE(vm_->WaitVM({}).ok());
  EXPECT_EQ(Properties().halt_reason(), "power-off");
}

TEST_F(ServiceTest, ATeardownAnswersAllWhoWait) {
  CreateVm();
  auto first = PendingWait(*vm_);
  auto second = PendingWait(*vm_);
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  EXPECT_EQ(first.get(), absl::OkStatus());
  EXPECT_EQ(second.get(), absl::OkStatus());
}

TEST_F(ServiceTest, AWaitThatIsGivenUpLeavesTheOthersWaiting) {
  CreateVm();
  bothy::testing::RawPeer impatient(Socket());
  ASSERT_TRUE(impatient.Send(bothy::testing::RequestFrame(
      1, "WaitVM", "", {.service = "vmservice.VM", .timeout_nano = 1'000'000})));
  EXPECT_EQ(impatient.ReceiveStatus().code(), StatusCode::kDeadlineExceeded);

  auto leaver = Connect();
  {
    wire::VMClient leaving(*leaver);
    const auto wait = PendingWait(leaving);
    leaver->Close();
    AwaitConnections(2);
  }
  auto patient = PendingWait(*vm_);
  ASSERT_TRUE(vm_->TeardownVM({}).ok());
  EXPECT_EQ(patient.get(), absl::OkStatus());
}

TEST_F(ServiceTest, ASlowCreateDelaysNobodyElse) {
  host_.HoldCreate();
  std::promise<absl::Status> created;
  vm_->CreateVMAsync(Request(), {},
                     [&](const auto& answer) { created.set_value(answer.status()); });
  host_.AwaitCreating();
  EXPECT_TRUE(vm_->CapabilitiesVM({}).ok());
  EXPECT_EQ(Properties().state(), wire::Uninitialized);
  host_.LetCreate();
  EXPECT_EQ(created.get_future().get(), absl::OkStatus());
  EXPECT_EQ(Properties().state(), wire::Paused);
}

TEST_F(ServiceTest, ACreateWhoseDeadlinePassesIsUndone) {
  host_.HoldCreate();
  bothy::testing::RawPeer peer(Socket());
  // The server's own answer: afterwards it knows that nobody waits.
  ASSERT_TRUE(peer.Send(
      bothy::testing::RequestFrame(1, "CreateVM", Request().SerializeAsString(),
                                   {.service = "vmservice.VM", .timeout_nano = 20'000'000})));
  host_.AwaitCreating();
  EXPECT_EQ(peer.ReceiveStatus().code(), StatusCode::kDeadlineExceeded);
  host_.LetCreate();
  // Its turn comes when the first has been undone.
  CreateVm();
  EXPECT_EQ(host_.made(), 2);
  EXPECT_EQ(host_.alive(), 1);
}

TEST_F(ServiceTest, ACreateWhoseCallerLeavesIsUndone) {
  host_.HoldCreate();
  auto leaver = Connect();
  std::promise<absl::Status> answered;
  wire::VMClient(*leaver).CreateVMAsync(
      Request(), {}, [&](const auto& answer) { answered.set_value(answer.status()); });
  host_.AwaitCreating();
  leaver->Close();
  EXPECT_EQ(answered.get_future().get().code(), StatusCode::kUnavailable);
  AwaitConnections(1);
  host_.LetCreate();
  CreateVm();
  EXPECT_EQ(host_.made(), 2);
  EXPECT_EQ(host_.alive(), 1);
}

TEST_F(ServiceTest, ACreateWhoseCallerLeavesIsGivenUp) {
  host_.CreateUntilStopped();
  auto leaver = Connect();
  wire::VMClient(*leaver).CreateVMAsync(Request(), {}, [](const auto&) {});
  host_.AwaitCreating();
  leaver->Close();
  // Its turn comes when the first has been given up.
  CreateVm();
  EXPECT_EQ(host_.made(), 1);
}

// Quit from a client and from a signal.
class QuitTest : public ServiceTest, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(FromBoth, QuitTest, ::testing::Bool());

TEST_P(QuitTest, UndoesACreateThatIsTooFarOnToBeGivenUp) {
  host_.HoldCreate();
  std::promise<absl::Status> created;
  vm_->CreateVMAsync(Request(), {},
                     [&](const auto& answer) { created.set_value(answer.status()); });
  host_.AwaitCreating();
  std::promise<absl::Status> quit;
  if (GetParam()) {
    vm_->QuitAsync({}, {}, [&](const auto& answer) { quit.set_value(answer.status()); });
    // Behind Quit on the same connection.
    EXPECT_TRUE(vm_->CapabilitiesVM({}).ok());
  } else {
    OnControl([this] { service_->Quit(); });
    quit.set_value(absl::OkStatus());
  }
  host_.LetCreate();
  EXPECT_EQ(created.get_future().get().code(), StatusCode::kCancelled);
  EXPECT_EQ(quit.get_future().get(), absl::OkStatus());
  quit_.get_future().get();
  EXPECT_EQ(host_.made(), 1);
  EXPECT_EQ(host_.alive(), 0);
}

TEST_P(QuitTest, DoesNotWaitForACreate) {
  host_.CreateUntilStopped();
  std::promise<absl::Status> created;
  vm_->CreateVMAsync(Request(), {},
                     [&](const auto& answer) { created.set_value(answer.status()); });
  std::promise<absl::Status> queued;
  vm_->CreateVMAsync(Request(), {}, [&](const auto& answer) { queued.set_value(answer.status()); });
  host_.AwaitCreating();
  if (GetParam()) {
    EXPECT_TRUE(vm_->Quit({}).ok());
  } else {
    OnControl([this] { service_->Quit(); });
  }
  EXPECT_EQ(created.get_future().get().code(), StatusCode::kCancelled);
  EXPECT_EQ(queued.get_future().get().code(), StatusCode::kCancelled);
  EXPECT_EQ(host_.made(), 0);
  quit_.get_future().get();
}

TEST_F(ServiceTest, AClientThatLeavesTakesNothingElseWithIt) {
  {
    const auto client = Connect();
    wire::VMClient vm(*client);
    ASSERT_TRUE(vm.CreateVM(Request()).ok());
    ASSERT_TRUE(vm.ResumeVM({}).ok());
  }
  AwaitConnections(1);
  EXPECT_EQ(Properties().state(), wire::Running);
}

TEST_F(ServiceTest, QuitTearsDownAndAnswersBeforeTheEnd) {
  CreateVm();
  auto wait = PendingWait(*vm_);
  EXPECT_TRUE(vm_->Quit({}).ok());
  EXPECT_EQ(wait.get(), absl::OkStatus());
  quit_.get_future().get();
  EXPECT_EQ(host_.alive(), 0);
}

TEST_F(ServiceTest, QuitByManyIsOneEnd) {
  CreateVm();
  std::vector<std::future<absl::Status>> quits;
  for (int i = 0; i < 5; ++i) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    quits.push_back(promise->get_future());
    vm_->QuitAsync({}, {}, [promise](const auto& answer) { promise->set_value(answer.status()); });
  }
  OnControl([this] { service_->Quit(); });
  for (auto& quit : quits) EXPECT_EQ(quit.get(), absl::OkStatus());
  quit_.get_future().get();  // a second set_value would have thrown
}

TEST_F(ServiceTest, QuitWithoutAVmEnds) {
  EXPECT_TRUE(vm_->Quit({}).ok());
  quit_.get_future().get();
}

}  // namespace
}  // namespace bothy::vmservice
