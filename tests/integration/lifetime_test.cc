// What VMs leave behind in their server: nothing.
#include "tests/integration/process_figures.h"
#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

class LifetimeTest : public ServerTest {};

TEST_F(LifetimeTest, TwoHundredVmsLeaveNothingBehind) {
  constexpr int kRounds = 200;
  constexpr int kWarm = 10;
  // Which freed pages malloc still holds depends on the order in which threads ended. Four pages:
  // less than 90 bytes for each of the VMs between.
  constexpr int64_t kSlackKib = 16;

  StartServer();
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()), 16);
  request.mutable_config()->mutable_processor_config()->set_processor_count(3);
  AddSerial(request, 0, SerialPath());
  AddSerial(request, 1, folder_ / "com2.sock");
  ProcessFigures warm;
  for (int round = 1; round <= kRounds; ++round) {
    ASSERT_THAT(vm_->Create(request), IsOk());
    switch (round % 4) {
      case 0:  // never runs
        break;
      case 1:  // torn down while it runs
        ASSERT_THAT(vm_->Resume(), IsOk());
        break;
      case 2: {  // torn down when it has ended, with a client on its serial port
        SerialClient serial(SerialPath());
        ASSERT_THAT(vm_->Resume(), IsOk());
        serial.ReadUntil("ready\n");
        serial.Send("q");
        ASSERT_EQ(vm_->HaltReason(), "power-off");
        break;
      }
      case 3: {  // torn down while it is paused and somebody waits
        ASSERT_THAT(vm_->Resume(), IsOk());
        ASSERT_THAT(vm_->Pause(), IsOk());
        auto wait = vm_->StartWait();
        ASSERT_THAT(vm_->Teardown(), IsOk());
        ASSERT_EQ(wait.get(), absl::OkStatus());
        break;
      }
    }
    ASSERT_THAT(vm_->Teardown(), IsOk());
    ASSERT_EQ(folder_.Names(), (std::vector<std::string>{"kernel", "vm.sock"}));
    if (round == kWarm) warm = FiguresOf(server_->pid());
  }
  const ProcessFigures last = FiguresOf(server_->pid());
  RecordProperty("private_kib_after_10", static_cast<int>(warm.anonymous_kib));
  RecordProperty("private_kib_after_200", static_cast<int>(last.anonymous_kib));
  std::cout << "after round " << kWarm << ": " << warm << "\nafter round " << kRounds << ": "
            << last << "\n";
  EXPECT_EQ(last.threads, warm.threads) << ThreadNames(server_->pid());
  EXPECT_EQ(last.descriptors, warm.descriptors);
  EXPECT_LE(last.mappings, warm.mappings);
  EXPECT_EQ(last.shared_kib, warm.shared_kib);
  EXPECT_LE(last.anonymous_kib, warm.anonymous_kib + kSlackKib);
}

TEST_F(LifetimeTest, RefusedVmsLeaveNothingBehind) {
  StartServer();
  wire::CreateVMRequest late = DirectBoot(KernelFile(micro::PuppetKernel()), 16);
  AddSerial(late, 0, SerialPath());
  AddSerial(late, 1, folder_ / "no such folder/com2.sock");
  wire::CreateVMRequest early = DirectBoot(folder_ / "nothing", 16);
  ProcessFigures warm;
  for (int round = 1; round <= 50; ++round) {
    ASSERT_EQ(vm_->Create(late).code(), absl::StatusCode::kNotFound);
    ASSERT_EQ(vm_->Create(early).code(), absl::StatusCode::kNotFound);
    if (round == 10) warm = FiguresOf(server_->pid());
  }
  const ProcessFigures last = FiguresOf(server_->pid());
  EXPECT_EQ(last.threads, warm.threads) << ThreadNames(server_->pid());
  EXPECT_EQ(last.descriptors, warm.descriptors);
  EXPECT_LE(last.mappings, warm.mappings);
  // Up and down by 24 KiB, as threads come and go; a leak of 1 KiB a VM is more than this.
  EXPECT_LE(last.anonymous_kib, warm.anonymous_kib + 48);
}

TEST_F(LifetimeTest, VcpuThreadsAreNamedAndThere) {
  StartServer();
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()));
  request.mutable_config()->mutable_processor_config()->set_processor_count(3);
  ASSERT_THAT(vm_->Create(request), IsOk());
  EXPECT_THAT(ThreadNames(server_->pid()), testing::HasSubstr("vp-0\nvp-1\nvp-2\n"));
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_THAT(ThreadNames(server_->pid()), testing::Not(testing::HasSubstr("vp-")));
}

}  // namespace
}  // namespace bothy::integration
