#include "pci/config_registers.h"

#include "support/check.h"

namespace bothy::pci {

size_t ConfigRegisters::Index(uint16_t offset) {
  CHECK(offset % sizeof(uint32_t) == 0 && offset < kConfigSpaceBytes);
  return offset / sizeof(uint32_t);
}

void ConfigRegisters::Define(uint16_t offset, const Register& rule) {
  CHECK((rule.writable & rule.write_one_to_clear) == 0);
  const size_t index = Index(offset);
  value_[index] = rule.reset;
  reset_[index] = rule.reset;
  writable_[index] = rule.writable;
  write_one_to_clear_[index] = rule.write_one_to_clear;
}

void ConfigRegisters::Redefine(uint16_t offset, uint32_t reset, uint32_t mask) {
  const size_t index = Index(offset);
  reset_[index] = (reset_[index] & ~mask) | (reset & mask);
  Set(offset, reset, mask);
}

void ConfigRegisters::Write(uint16_t offset, uint32_t value, uint32_t enabled) {
  const size_t index = Index(offset);
  const uint32_t written = writable_[index] & enabled;
  const uint32_t cleared = write_one_to_clear_[index] & enabled & value;
  value_[index] = (value_[index] & ~written & ~cleared) | (value & written);
}

void ConfigRegisters::Set(uint16_t offset, uint32_t value, uint32_t mask) {
  const size_t index = Index(offset);
  value_[index] = (value_[index] & ~mask) | (value & mask);
}

}  // namespace bothy::pci
