// How a guest ends, and what the server makes of it.
#include <signal.h>

#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

class PowerTest : public ServerTest {
 protected:
  // Boots a kernel and has it tell why it halted.
  std::string HaltReasonOf(const std::vector<uint8_t>& kernel) {
    StartServer();
    EXPECT_THAT(vm_->Create(DirectBoot(KernelFile(kernel))), IsOk());
    EXPECT_THAT(vm_->Resume(), IsOk());
    return vm_->HaltReason();
  }
};

std::vector<uint8_t> KernelThat(void (*ends)(micro::MachineCode&)) {
  micro::MachineCode code(micro::kLoadAddress);
  ends(code);
  return micro::Kernel(code);
}

TEST_F(PowerTest, PowerOffThroughAcpiHalts) {
  EXPECT_EQ(HaltReasonOf(KernelThat(micro::PowerOff)), "power-off");
}

TEST_F(PowerTest, ResetThroughPortCf9Halts) {
  EXPECT_EQ(HaltReasonOf(KernelThat(micro::ResetByPort)), "reset");
}

TEST_F(PowerTest, ResetThroughTheKeyboardControllerHalts) {
  EXPECT_EQ(HaltReasonOf(KernelThat(micro::ResetByKeyboard)), "reset");
}

TEST_F(PowerTest, TripleFaultHalts) {
  EXPECT_EQ(HaltReasonOf(KernelThat(micro::TripleFault)), "triple-fault");
}

TEST_F(PowerTest, TheGuestsOutputArrivesBeforeItsEnd) {
  StartServer();
  wire::CreateVMRequest request =
      DirectBoot(KernelFile(micro::HelloKernel("hello from the guest\n")));
  AddSerial(request, 0, SerialPath());
  ASSERT_THAT(vm_->Create(request), IsOk());
  SerialClient serial(SerialPath());
  ASSERT_THAT(vm_->Resume(), IsOk());
  EXPECT_EQ(vm_->HaltReason(), "power-off");
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_EQ(serial.ReadToEnd(), "hello from the guest\n");
}

struct Restart {
  const char* name;
  void (*end)(micro::MachineCode&);
  void (wire::VMConfig::GuestPowerActions::*set)(wire::VMConfig::GuestPowerAction);
};

class RestartTest : public ServerTest, public testing::WithParamInterface<Restart> {};

TEST_P(RestartTest, BootsAgainFromClearMemory) {
  StartServer();
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::RestartKernel(GetParam().end)));
  (request.mutable_config()->mutable_guest_power_actions()->*GetParam().set)(
      wire::VMConfig::RESTART);
  AddSerial(request, 0, SerialPath());
  ASSERT_THAT(vm_->Create(request), IsOk());
  SerialClient serial(SerialPath());
  auto wait = vm_->StartWait();
  ASSERT_THAT(vm_->Resume(), IsOk());
  // One connection sees both boots, and the wait is for the last end.
  if (std::string(GetParam().name) == "Shutdown") {
    // Powering off restarts every time: the second end is a third boot, and so on.
    EXPECT_THAT(serial.ReadUntil("second, clean\nsecond, clean\n"),
                testing::StartsWith("first\nsecond, clean\n"));
    ASSERT_THAT(vm_->Teardown(), IsOk());
  } else {
    EXPECT_EQ(serial.ReadUntil("second, clean\n"), "first\nsecond, clean\n");
    EXPECT_EQ(vm_->HaltReason(), "power-off");
  }
  EXPECT_EQ(wait.get(), absl::OkStatus());
}

INSTANTIATE_TEST_SUITE_P(Actions, RestartTest,
                         testing::Values(Restart{"Reset", micro::ResetByPort,
                                                 &wire::VMConfig::GuestPowerActions::set_reset},
                                         Restart{"KeyboardReset", micro::ResetByKeyboard,
                                                 &wire::VMConfig::GuestPowerActions::set_reset},
                                         Restart{"Crash", micro::TripleFault,
                                                 &wire::VMConfig::GuestPowerActions::set_crash},
                                         Restart{"Shutdown", micro::PowerOff,
                                                 &wire::VMConfig::GuestPowerActions::set_shutdown}),
                         [](const auto& restart) { return std::string(restart.param.name); });

TEST_F(PowerTest, ARestartIsOnlyForWhatItWasAskedFor) {
  StartServer();
  wire::CreateVMRequest request = DirectBoot(KernelFile(KernelThat(micro::TripleFault)));
  request.mutable_config()->mutable_guest_power_actions()->set_reset(wire::VMConfig::RESTART);
  ASSERT_THAT(vm_->Create(request), IsOk());
  ASSERT_THAT(vm_->Resume(), IsOk());
  EXPECT_EQ(vm_->HaltReason(), "triple-fault");
}

TEST_F(PowerTest, AHaltedVmWaitsForItsTeardown) {
  EXPECT_EQ(HaltReasonOf(KernelThat(micro::PowerOff)), "power-off");
  EXPECT_EQ(vm_->Resume().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(vm_->Pause().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(vm_->Create(DirectBoot(folder_ / "kernel")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(vm_->Wait(), IsOk());
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_EQ(vm_->Wait().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(vm_->Create(DirectBoot(folder_ / "kernel")), IsOk());
}

// kill -9 while a guest runs.
TEST_F(PowerTest, AKilledServerLeavesItsSocketsAndAnotherStartsOverThem) {
  StartServer();
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()), 16);
  AddSerial(request, 0, SerialPath());
  ASSERT_THAT(vm_->Create(request), IsOk());
  ASSERT_THAT(vm_->Resume(), IsOk());
  SerialClient(SerialPath()).ReadUntil("ready\n");
  auto wait = vm_->StartWait();
  server_->Signal(SIGKILL);
  EXPECT_EQ(wait.get().code(), absl::StatusCode::kUnavailable);
  server_->AwaitEnd();
  EXPECT_THAT(folder_.Names(), testing::ElementsAre("com1.sock", "kernel", "vm.sock"));
  // Its sockets are stale; nothing else is there to be in the way.
  StartServer();
  ASSERT_THAT(vm_->Create(request), IsOk());
  ASSERT_THAT(vm_->Resume(), IsOk());
  SerialClient serial(SerialPath());
  serial.ReadUntil("ready\n");
  serial.Send("q");
  EXPECT_EQ(vm_->HaltReason(), "power-off");
}

TEST_F(PowerTest, ASignalEndsARunningVmAsQuitDoes) {
  for (const int signal : {SIGTERM, 0}) {
    StartServer();
    wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()));
    AddSerial(request, 0, SerialPath());
    ASSERT_THAT(vm_->Create(request), IsOk());
    ASSERT_THAT(vm_->Resume(), IsOk());
    auto wait = vm_->StartWait();
    if (signal != 0) {
      server_->Signal(signal);
    } else {
      EXPECT_THAT(vm_->Quit(), IsOk());
    }
    EXPECT_EQ(wait.get(), absl::OkStatus());
    EXPECT_EQ(server_->AwaitEnd(), 0);
    EXPECT_THAT(folder_.Names(), testing::ElementsAre("kernel"));
  }
}

}  // namespace
}  // namespace bothy::integration
