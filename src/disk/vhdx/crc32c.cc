#include "disk/vhdx/crc32c.h"

#include <nmmintrin.h>

#include <array>

#include "support/check.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint32_t kReflectedPolynomial = 0x82F63B78;

// tables[k][b]: what the byte b contributes when k more bytes follow it ("slicing by 8").
constexpr std::array<std::array<uint32_t, 256>, 8> MakeTables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}
constexpr auto kTables = MakeTables();

__attribute__((target("sse4.2"))) uint32_t Accelerated(std::span<const uint8_t> bytes,
                                                       uint32_t so_far) {
  uint64_t crc = ~so_far;
  while (bytes.size() >= 8) {
    crc = _mm_crc32_u64(crc, LoadLe<uint64_t>(bytes.data()));
    bytes = bytes.subspan(8);
  }
  auto rest = static_cast<uint32_t>(crc);
  for (const uint8_t byte : bytes) rest = _mm_crc32_u8(rest, byte);
  return ~rest;
}

}  // namespace

uint32_t Crc32cPortable(std::span<const uint8_t> bytes, uint32_t so_far) {
  uint32_t crc = ~so_far;
  while (bytes.size() >= 8) {
    const uint64_t word = LoadLe<uint64_t>(bytes.data()) ^ crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
    bytes = bytes.subspan(8);
  }
  for (const uint8_t byte : bytes) crc = (crc >> 8) ^ kTables[0][(crc ^ byte) & 0xFF];
  return ~crc;
}

uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t so_far) {
  static const bool accelerated = __builtin_cpu_supports("sse4.2") != 0;
  return accelerated ? Accelerated(bytes, so_far) : Crc32cPortable(bytes, so_far);
}

uint32_t Crc32cWithoutField(std::span<const uint8_t> bytes, size_t field_offset) {
  CHECK(field_offset + 4 <= bytes.size());
  constexpr uint8_t kZero[4] = {};
  const uint32_t before = Crc32c(bytes.first(field_offset));
  return Crc32c(bytes.subspan(field_offset + 4), Crc32c(kZero, before));
}

}  // namespace bothy::disk::vhdx
