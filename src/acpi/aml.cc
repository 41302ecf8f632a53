#include "acpi/aml.h"

#include <array>
#include <cstddef>

#include "support/check.h"

namespace bothy::acpi::aml {
namespace {

// ACPI 6.4, 20.3: opcodes.
constexpr uint8_t kZeroOp = 0x00;
constexpr uint8_t kOneOp = 0x01;
constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0A;
constexpr uint8_t kWordPrefix = 0x0B;
constexpr uint8_t kDWordPrefix = 0x0C;
constexpr uint8_t kStringPrefix = 0x0D;
constexpr uint8_t kQWordPrefix = 0x0E;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kMethodOp = 0x14;
constexpr uint8_t kDualNamePrefix = 0x2E;
constexpr uint8_t kMultiNamePrefix = 0x2F;
constexpr uint8_t kExtOpPrefix = 0x5B;
constexpr uint8_t kDeviceOp = 0x82;  // extended
constexpr uint8_t kLocal0Op = 0x60;
constexpr uint8_t kArg0Op = 0x68;
constexpr uint8_t kStoreOp = 0x70;
constexpr uint8_t kAndOp = 0x7B;
constexpr uint8_t kOrOp = 0x7D;
constexpr uint8_t kCreateDWordFieldOp = 0x8A;
constexpr uint8_t kLNotOp = 0x92;
constexpr uint8_t kLEqualOp = 0x93;
constexpr uint8_t kIfOp = 0xA0;
constexpr uint8_t kElseOp = 0xA1;
constexpr uint8_t kReturnOp = 0xA4;
constexpr uint8_t kOnesOp = 0xFF;

constexpr size_t kSegmentChars = 4;

bool IsLeadNameChar(char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNameChar(char c) { return IsLeadNameChar(c) || (c >= '0' && c <= '9'); }

void CheckSegment(std::string_view segment) {
  CHECK(segment.size() == kSegmentChars && IsLeadNameChar(segment[0]));
  for (const char c : segment) CHECK(IsNameChar(c));
}

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// 20.2.4: the length counts itself. One byte up to 63, else the low nibble first and up to three
// bytes behind it.
Code WithLength(const Code& body) {
  Code code;
  if (body.size() + 1 <= 0x3F) {
    code.Byte(static_cast<uint8_t>(body.size() + 1));
  } else {
    size_t extra = 1;
    while (body.size() + 1 + extra >= size_t{1} << (4 + 8 * extra)) ++extra;
    CHECK(extra <= 3);
    const size_t length = body.size() + 1 + extra;
    code.Byte(static_cast<uint8_t>(extra << 6 | (length & 0xF)));
    code.Little(length >> 4, extra);
  }
  code.Append(body);
  return code;
}

Code Op(uint8_t opcode, std::initializer_list<Code> operands) {
  Code code;
  code.Byte(opcode);
  for (const Code& operand : operands) code.Append(operand);
  return code;
}

Code Block(uint8_t opcode, const Code& body) { return Op(opcode, {WithLength(body)}); }

Code Raw(std::initializer_list<uint8_t> bytes) {
  Code code;
  code.Append(std::span(bytes.begin(), bytes.size()));
  return code;
}

// "PNP0A08" as the 32-bit integer of 19.3.4: 5 bits a letter, 4 a digit, bytes swapped.
uint32_t CompressedEisaId(std::string_view id) {
  CHECK(id.size() == 7);
  uint32_t value = 0;
  for (size_t i = 0; i < 3; ++i) {
    CHECK(id[i] >= 'A' && id[i] <= 'Z');
    value = value << 5 | static_cast<uint32_t>(id[i] - 'A' + 1);
  }
  for (const char c : id.substr(3)) {
    CHECK((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'));
    value = value << 4 | static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'A' + 10);
  }
  return __builtin_bswap32(value);
}

uint8_t HexDigit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  CHECK(c >= 'a' && c <= 'f');
  return static_cast<uint8_t>(c - 'a' + 10);
}

Code IrqDescriptor(uint8_t line, uint8_t flags) {
  CHECK(line < 16);
  Code code = Raw({0x23});  // 6.4.2.1, with the flags byte
  code.Little(1U << line, 2);
  code.Byte(flags);
  return code;
}

// What a window's addresses are (6.4.3.5).
enum class WindowType : uint8_t { kMemory = 0, kIo = 1, kBusNumber = 2 };

// A Word, DWord or QWord address space descriptor for a window that a bridge produces.
Code Window(uint8_t tag, size_t width, WindowType type, uint8_t type_flags, uint64_t base,
            uint64_t size) {
  CHECK(size > 0 && base + (size - 1) >= base);
  constexpr uint8_t kMinAndMaxFixed = 0x0C;
  Code code = Raw({tag});
  code.Little(3 + 5 * width, 2);
  code.Byte(static_cast<uint8_t>(type));
  code.Byte(kMinAndMaxFixed);
  code.Byte(type_flags);
  code.Little(0, width);  // granularity
  code.Little(base, width);
  code.Little(base + size - 1, width);
  code.Little(0, width);  // translation
  code.Little(size, width);
  return code;
}

constexpr uint8_t kWordWindow = 0x88;
constexpr uint8_t kDWordWindow = 0x87;
constexpr uint8_t kQWordWindow = 0x8A;
constexpr uint8_t kReadWriteNonCacheable = 0x01;
constexpr uint8_t kEntireIoRange = 0x03;

}  // namespace

Code::Code(std::initializer_list<Code> terms) {
  for (const Code& term : terms) Append(term);
}

void Code::Little(uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) Byte(static_cast<uint8_t>(value >> (8 * i)));
}

Code Integer(uint64_t value) {
  Code code;
  if (value == 0) {
    code.Byte(kZeroOp);
  } else if (value == 1) {
    code.Byte(kOneOp);
  } else if (value == UINT64_MAX) {
    code.Byte(kOnesOp);
  } else if (value <= UINT8_MAX) {
    code.Byte(kBytePrefix);
    code.Little(value, 1);
  } else if (value <= UINT16_MAX) {
    code.Byte(kWordPrefix);
    code.Little(value, 2);
  } else if (value <= UINT32_MAX) {
    code.Byte(kDWordPrefix);
    code.Little(value, 4);
  } else {
    code.Byte(kQWordPrefix);
    code.Little(value, 8);
  }
  return code;
}

Code String(std::string_view text) {
  Code code = Raw({kStringPrefix});
  code.Append(AsBytes(text));
  code.Byte(0);
  return code;
}

Code EisaId(std::string_view id) {
  Code code = Raw({kDWordPrefix});
  code.Little(CompressedEisaId(id), 4);
  return code;
}

Code Uuid(std::string_view uuid) {
  // 19.6.142: aabbccdd-eeff-gghh-iijj-kkllmmnnoopp; the first three groups are little-endian.
  constexpr std::array<size_t, 16> kDigits = {6,  4,  2,  0,  11, 9,  16, 14,
                                              19, 21, 24, 26, 28, 30, 32, 34};
  CHECK(uuid.size() == 36);
  std::array<uint8_t, 16> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] =
        static_cast<uint8_t>(HexDigit(uuid[kDigits[i]]) << 4 | HexDigit(uuid[kDigits[i] + 1]));
  }
  return Buffer(bytes);
}

Code Buffer(std::span<const uint8_t> bytes) {
  Code body = Integer(bytes.size());
  body.Append(bytes);
  return Block(kBufferOp, body);
}

Code Package(std::span<const Code> elements) {
  CHECK(elements.size() <= 255);
  Code body = Raw({static_cast<uint8_t>(elements.size())});
  for (const Code& element : elements) body.Append(element);
  return Block(kPackageOp, body);
}

Code Path(std::string_view name) {
  Code code;
  if (name.starts_with('\\')) {
    code.Byte('\\');
    name.remove_prefix(1);
  }
  const size_t segments = (name.size() + 1) / (kSegmentChars + 1);
  CHECK(segments >= 1 && segments <= 255 && name.size() == segments * (kSegmentChars + 1) - 1);
  if (segments == 2) {
    code.Byte(kDualNamePrefix);
  } else if (segments > 2) {
    code.Byte(kMultiNamePrefix);
    code.Byte(static_cast<uint8_t>(segments));
  }
  for (size_t i = 0; i < segments; ++i) {
    const size_t at = i * (kSegmentChars + 1);
    CHECK(i == 0 || name[at - 1] == '.');
    CheckSegment(name.substr(at, kSegmentChars));
    code.Append(AsBytes(name.substr(at, kSegmentChars)));
  }
  return code;
}

Code Arg(uint8_t index) {
  CHECK(index <= 6);
  return Raw({static_cast<uint8_t>(kArg0Op + index)});
}

Code Local(uint8_t index) {
  CHECK(index <= 7);
  return Raw({static_cast<uint8_t>(kLocal0Op + index)});
}

Code Name(std::string_view name, const Code& value) { return Op(kNameOp, {Path(name), value}); }

Code Scope(std::string_view name, const Code& terms) {
  return Block(kScopeOp, {Path(name), terms});
}

Code Device(std::string_view name, const Code& terms) {
  return {Raw({kExtOpPrefix}), Block(kDeviceOp, {Path(name), terms})};
}

Code Method(std::string_view name, uint8_t arguments, const Code& terms) {
  CHECK(arguments <= 7);
  return Block(kMethodOp, {Path(name), Raw({arguments}), terms});
}

Code CreateDWordField(const Code& buffer, uint64_t byte_index, std::string_view name) {
  return Op(kCreateDWordFieldOp, {buffer, Integer(byte_index), Path(name)});
}

Code If(const Code& condition, const Code& terms) { return Block(kIfOp, {condition, terms}); }
Code Else(const Code& terms) { return Block(kElseOp, terms); }
Code Return(const Code& value) { return Op(kReturnOp, {value}); }
Code Store(const Code& value, const Code& target) { return Op(kStoreOp, {value, target}); }
Code And(const Code& a, const Code& b, const Code& target) { return Op(kAndOp, {a, b, target}); }
Code Or(const Code& a, const Code& b, const Code& target) { return Op(kOrOp, {a, b, target}); }
Code Equal(const Code& a, const Code& b) { return Op(kLEqualOp, {a, b}); }
Code NotEqual(const Code& a, const Code& b) { return Op(kLNotOp, {Equal(a, b)}); }

Code ResourceTemplate(const Code& descriptors) {
  Code all = descriptors;
  all.Append(Raw({0x79, 0x00}));  // end tag; a checksum of 0 is "not checked" (6.4.2.9)
  return Buffer(all.bytes());
}

Code ResourceTemplate(std::initializer_list<Code> descriptors) {
  return ResourceTemplate(Code(descriptors));
}

Code Io(uint16_t base, uint8_t size) {
  CHECK(size > 0 && base + size <= 0x10000);
  Code code = Raw({0x47, 0x01});  // 6.4.2.5, 16-bit decode
  code.Little(base, 2);
  code.Little(base, 2);
  code.Byte(1);  // alignment
  code.Byte(size);
  return code;
}

Code Irq(uint8_t line) { return IrqDescriptor(line, 0x01); }
Code SharedIrq(uint8_t line) { return IrqDescriptor(line, 0x11); }

Code Memory32Fixed(uint32_t base, uint32_t size) {
  CHECK(size > 0);
  Code code = Raw({0x86, 0x09, 0x00, 0x01});  // 6.4.3.4, read and write
  code.Little(base, 4);
  code.Little(size, 4);
  return code;
}

Code BusNumberWindow(uint16_t first, uint16_t count) {
  return Window(kWordWindow, 2, WindowType::kBusNumber, 0, first, count);
}

Code IoWindow(uint16_t base, uint32_t size) {
  CHECK(base + size <= 0x10000);
  return Window(kWordWindow, 2, WindowType::kIo, kEntireIoRange, base, size);
}

Code MemoryWindow32(uint32_t base, uint32_t size) {
  return Window(kDWordWindow, 4, WindowType::kMemory, kReadWriteNonCacheable, base, size);
}

Code MemoryWindow64(uint64_t base, uint64_t size) {
  return Window(kQWordWindow, 8, WindowType::kMemory, kReadWriteNonCacheable, base, size);
}

}  // namespace bothy::acpi::aml
