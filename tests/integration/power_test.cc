// How a guest ends, and what the server makes of it.
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

}  // namespace
}  // namespace bothy::integration
