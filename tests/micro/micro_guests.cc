#include "tests/micro/micro_guests.h"

#include "boot/test_kernels.h"

namespace bothy::micro {
namespace {

constexpr uint16_t kLineStatus = 5;  // offset from a COM port's base
constexpr uint8_t kDataReady = 0x01;
constexpr uint16_t kPm1aControl = 0x604;
constexpr uint16_t kPmTimer = 0x608;
// SLP_TYP 5 (bits 10..12) and SLP_EN (bit 13); ACPI 6.5, 4.8.3.2.1.
constexpr uint16_t kSleepS5 = 5 << 10 | 1 << 13;
constexpr uint16_t kCmosIndex = 0x70;
constexpr uint16_t kCmosData = 0x71;
constexpr uint8_t kCmosMark = 0x40;  // a byte of the RTC's RAM that nobody else uses
constexpr uint8_t kMarked = 0xA5;

}  // namespace

std::vector<uint8_t> Kernel(MachineCode& code) {
  return boot::BuildElf(
      {.entry = kLoadAddress, .segments = {{.gpa = kLoadAddress, .bytes = code.Finish()}}});
}

void PowerOff(MachineCode& code) {
  code.Out16(kPm1aControl, kSleepS5);
  code.HaltForever();
}

void ResetByPort(MachineCode& code) {
  code.Out8(0xCF9, 0x06);
  code.HaltForever();
}

void ResetByKeyboard(MachineCode& code) {
  code.Out8(0x64, 0xFE);
  code.HaltForever();
}

void TripleFault(MachineCode& code) { code.InvalidOpcode(); }

std::vector<uint8_t> HelloKernel(std::string_view text) {
  MachineCode code(kLoadAddress);
  code.Print(kCom1, text);
  PowerOff(code);
  return Kernel(code);
}

std::vector<uint8_t> ChatterKernel(std::string_view text) {
  MachineCode code(kLoadAddress);
  const auto again = code.Here();
  code.Print(kCom1, text);
  code.Jump(again);
  return Kernel(code);
}

std::vector<uint8_t> PuppetKernel() {
  MachineCode code(kLoadAddress);
  const auto timer = code.NewLabel();
  const auto power_off = code.NewLabel();
  const auto reset_by_port = code.NewLabel();
  const auto reset_by_keyboard = code.NewLabel();
  const auto triple_fault = code.NewLabel();

  code.Print(kCom1, "ready\n");
  const auto loop = code.Here();
  code.Increment(kCounterAddress);
  code.In8(kCom1 + kLineStatus);
  code.TestAl(kDataReady);
  code.JumpIfEqual(loop);
  code.In8(kCom1);
  code.CompareAl('t');
  code.JumpIfEqual(timer);
  code.CompareAl('q');
  code.JumpIfEqual(power_off);
  code.CompareAl('c');
  code.JumpIfEqual(reset_by_port);
  code.CompareAl('k');
  code.JumpIfEqual(reset_by_keyboard);
  code.CompareAl('f');
  code.JumpIfEqual(triple_fault);
  code.OutAl(kCom1);
  code.Jump(loop);

  code.Bind(timer);
  code.In32(kPmTimer);
  for (int i = 0; i < 4; ++i) {
    code.OutAl(kCom1);
    code.ShiftRight(8);
  }
  code.Jump(loop);

  code.Bind(power_off);
  PowerOff(code);
  code.Bind(reset_by_port);
  ResetByPort(code);
  code.Bind(reset_by_keyboard);
  ResetByKeyboard(code);
  code.Bind(triple_fault);
  TripleFault(code);
  return Kernel(code);
}

std::vector<uint8_t> RestartKernel(void (*end)(MachineCode&)) {
  MachineCode code(kLoadAddress);
  const auto second = code.NewLabel();
  const auto dirty = code.NewLabel();

  code.Out8(kCmosIndex, kCmosMark);
  code.In8(kCmosData);
  code.CompareAl(kMarked);
  code.JumpIfEqual(second);
  code.Store(kMarkAddress, kMarked);
  code.Out8(kCmosIndex, kCmosMark);
  code.Out8(kCmosData, kMarked);
  code.Print(kCom1, "first\n");
  end(code);

  code.Bind(second);
  code.Compare(kMarkAddress, 0);
  code.JumpIfNotEqual(dirty);
  code.Print(kCom1, "second, clean\n");
  PowerOff(code);
  code.Bind(dirty);
  code.Print(kCom1, "second, dirty\n");
  PowerOff(code);
  return Kernel(code);
}

}  // namespace bothy::micro
