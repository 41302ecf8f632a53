// MachineCode: the few x86-64 instructions that micro guests are made of, assembled as they are
// called for.
//
//   MachineCode code(0x10'0000);
//   code.Print(0x3F8, "hello\n");
//   const auto forever = code.Here();
//   code.Jump(forever);
//   const std::vector<uint8_t> bytes = code.Finish();
//
// Addresses of memory operands are absolute and below 2 GiB. Opcodes are those of the Intel SDM,
// volume 2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace bothy::micro {

class MachineCode {
 public:
  // A place in the code; jumps may come before it is bound.
  struct Label {
    size_t index;
  };

  // The code will lie at guest-physical address `base`.
  explicit MachineCode(uint32_t base) : base_(base) {}

  [[nodiscard]] Label NewLabel();
  void Bind(Label label);
  [[nodiscard]] Label Here();

  void Jump(Label to);
  void JumpIfEqual(Label to);
  void JumpIfNotEqual(Label to);

  // AL (AX, EAX) from and to I/O ports; DX is overwritten.
  void In8(uint16_t port);
  void In32(uint16_t port);
  void OutAl(uint16_t port);
  void Out8(uint16_t port, uint8_t value);
  void Out16(uint16_t port, uint16_t value);

  void CompareAl(uint8_t value);
  // Equal when none of the bits is set.
  void TestAl(uint8_t mask);
  // EAX, shifted right.
  void ShiftRight(uint8_t bits);

  void Increment(uint32_t address);  // 64 bits
  void Store(uint32_t address, uint32_t value);
  void Compare(uint32_t address, uint32_t value);  // 32 bits

  // `text` to a byte-wide port, by one string instruction. RSI, RCX and DX are overwritten.
  void Print(uint16_t port, std::string_view text);

  void InvalidOpcode();  // a triple fault, where there is no IDT
  void HaltForever();    // with interrupts off

  // The code; every label that was jumped to must be bound.
  [[nodiscard]] std::vector<uint8_t> Finish();

 private:
  void Emit(std::initializer_list<uint8_t> bytes);
  void Emit32(uint32_t value);
  void LoadDx(uint16_t port);
  void EmitTarget(Label to);

  struct Fixup {
    size_t at;  // of the 32-bit displacement
    Label to;
  };

  const uint32_t base_;
  std::vector<uint8_t> bytes_;
  std::vector<size_t> labels_;  // offset, or kUnbound
  std::vector<Fixup> fixups_;
};

}  // namespace bothy::micro
