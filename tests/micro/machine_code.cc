#include "tests/micro/machine_code.h"

#include "support/check.h"
#include "support/endian.h"

namespace bothy::micro {
namespace {

constexpr size_t kUnbound = SIZE_MAX;

}  // namespace

MachineCode::Label MachineCode::NewLabel() {
  labels_.push_back(kUnbound);
  return {labels_.size() - 1};
}

void MachineCode::Bind(Label label) {
  CHECK(labels_[label.index] == kUnbound);
  labels_[label.index] = bytes_.size();
}

MachineCode::Label MachineCode::Here() {
  const Label label = NewLabel();
  Bind(label);
  return label;
}

void MachineCode::Emit(std::initializer_list<uint8_t> bytes) { bytes_.insert(bytes_.end(), bytes); }

void MachineCode::Emit32(uint32_t value) {
  bytes_.resize(bytes_.size() + sizeof value);
  StoreLe(bytes_.data() + bytes_.size() - sizeof value, value);
}

void MachineCode::EmitTarget(Label to) {
  fixups_.push_back({.at = bytes_.size(), .to = to});
  Emit32(0);
}

void MachineCode::Jump(Label to) {
  Emit({0xE9});
  EmitTarget(to);
}
void MachineCode::JumpIfEqual(Label to) {
  Emit({0x0F, 0x84});
  EmitTarget(to);
}
void MachineCode::JumpIfNotEqual(Label to) {
  Emit({0x0F, 0x85});
  EmitTarget(to);
}

void MachineCode::LoadDx(uint16_t port) {
  Emit({0x66, 0xBA, static_cast<uint8_t>(port), static_cast<uint8_t>(port >> 8)});
}
void MachineCode::In8(uint16_t port) {
  LoadDx(port);
  Emit({0xEC});
}
void MachineCode::In32(uint16_t port) {
  LoadDx(port);
  Emit({0xED});
}
void MachineCode::OutAl(uint16_t port) {
  LoadDx(port);
  Emit({0xEE});
}
void MachineCode::Out8(uint16_t port, uint8_t value) {
  Emit({0xB0, value});
  OutAl(port);
}
void MachineCode::Out16(uint16_t port, uint16_t value) {
  Emit({0x66, 0xB8, static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8)});
  LoadDx(port);
  Emit({0x66, 0xEF});
}

void MachineCode::CompareAl(uint8_t value) { Emit({0x3C, value}); }
void MachineCode::TestAl(uint8_t mask) { Emit({0xA8, mask}); }
void MachineCode::ShiftRight(uint8_t bits) { Emit({0xC1, 0xE8, bits}); }

// 0x04 0x25: ModRM and SIB of an absolute 32-bit address.
void MachineCode::Increment(uint32_t address) {
  Emit({0x48, 0xFF, 0x04, 0x25});
  Emit32(address);
}
void MachineCode::Store(uint32_t address, uint32_t value) {
  Emit({0xC7, 0x04, 0x25});
  Emit32(address);
  Emit32(value);
}
void MachineCode::Compare(uint32_t address, uint32_t value) {
  Emit({0x81, 0x3C, 0x25});
  Emit32(address);
  Emit32(value);
}

void MachineCode::Print(uint16_t port, std::string_view text) {
  const Label after_text = NewLabel();
  Jump(after_text);
  const auto address = static_cast<uint32_t>(base_ + bytes_.size());
  bytes_.insert(bytes_.end(), text.begin(), text.end());
  Bind(after_text);
  Emit({0xBE});  // mov esi
  Emit32(address);
  Emit({0xB9});  // mov ecx
  Emit32(static_cast<uint32_t>(text.size()));
  LoadDx(port);
  Emit({0xF3, 0x6E});  // rep outsb
}

void MachineCode::InvalidOpcode() { Emit({0x0F, 0x0B}); }

void MachineCode::HaltForever() {
  const Label again = Here();
  Emit({0xFA, 0xF4});  // cli; hlt
  Jump(again);
}

std::vector<uint8_t> MachineCode::Finish() {
  for (const Fixup& fixup : fixups_) {
    const size_t target = labels_[fixup.to.index];
    CHECK(target != kUnbound);
    // Relative to the next instruction.
    StoreLe(bytes_.data() + fixup.at, static_cast<uint32_t>(target - (fixup.at + 4)));
  }
  fixups_.clear();
  return bytes_;
}

}  // namespace bothy::micro
