// AML: the byte code of ACPI definition blocks, built from small functions.
//
// Each function returns the encoding of one term (ACPI 6.4, chapter 20); a term list is their
// concatenation. What is passed in are constants of ours: a malformed name is a CHECK.
//
//   Code device = Device("RTC_", {Name("_HID", EisaId("PNP0B00")),
//                                 Name("_CRS", ResourceTemplate({Io(0x70, 2), Irq(8)}))});
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace bothy::acpi::aml {

// Encoded terms. A type of its own so that raw bytes aren't taken for code.
class Code {
 public:
  Code() = default;
  // Terms after one another.
  Code(std::initializer_list<Code> terms);  // NOLINT(google-explicit-constructor)

  void Byte(uint8_t value) { bytes_.push_back(value); }
  // The `size` low bytes of `value`, little-endian.
  void Little(uint64_t value, size_t size);
  void Append(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void Append(const Code& code) { Append(code.bytes()); }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }

 private:
  std::vector<uint8_t> bytes_;
};

// Data objects.
Code Integer(uint64_t value);
Code String(std::string_view text);  // ASCII
Code EisaId(std::string_view id);    // "PNP0A08": three letters, four hex digits
Code Uuid(std::string_view uuid);    // the Buffer of ASL's ToUUID
Code Buffer(std::span<const uint8_t> bytes);
Code Package(std::span<const Code> elements);  // at most 255

// A reference to a named object: "PCI0", "\\_SB_.PCI0". Segments have four characters.
Code Path(std::string_view name);
Code Arg(uint8_t index);    // 0..6
Code Local(uint8_t index);  // 0..7

// Named objects.
Code Name(std::string_view name, const Code& value);
Code Scope(std::string_view name, const Code& terms);
Code Device(std::string_view name, const Code& terms);
Code Method(std::string_view name, uint8_t arguments, const Code& terms);  // not serialized
Code CreateDWordField(const Code& buffer, uint64_t byte_index, std::string_view name);

// Statements and expressions. A `target` is where the result is stored as well.
Code If(const Code& condition, const Code& terms);
Code Else(const Code& terms);  // follows its If
Code Return(const Code& value);
Code Store(const Code& value, const Code& target);
Code And(const Code& a, const Code& b, const Code& target);
Code Or(const Code& a, const Code& b, const Code& target);
Code Equal(const Code& a, const Code& b);
Code NotEqual(const Code& a, const Code& b);

// Resource descriptors (ACPI 6.4, 6.4) and the Buffer that holds a list of them, which is closed
// with an end tag.
Code ResourceTemplate(std::initializer_list<Code> descriptors);
Code ResourceTemplate(const Code& descriptors);
Code Io(uint16_t base, uint8_t size);  // 16-bit decode, fixed
Code Irq(uint8_t line);                // edge, active high, exclusive
Code SharedIrq(uint8_t line);          // the same, shared
Code Memory32Fixed(uint32_t base, uint32_t size);
// Windows that a bridge passes on; `size` isn't 0.
Code BusNumberWindow(uint16_t first, uint16_t count);
Code IoWindow(uint16_t base, uint32_t size);
Code MemoryWindow32(uint32_t base, uint32_t size);
Code MemoryWindow64(uint64_t base, uint64_t size);

}  // namespace bothy::acpi::aml
