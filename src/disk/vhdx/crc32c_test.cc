#include "disk/vhdx/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace bothy::disk::vhdx {
namespace {

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// RFC 3720, B.4.
TEST(Crc32cTest, HasTheKnownValues) {
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xE3069283U);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0)), 0x8A9136AAU);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0xFF)), 0x62A8AB43U);
  EXPECT_EQ(Crc32c({}), 0U);
}

TEST(Crc32cTest, TheTableAgreesWithTheInstruction) {
  std::mt19937_64 random(1);
  for (size_t length = 0; length < 300; ++length) {
    std::vector<uint8_t> bytes(length);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(Crc32c(bytes), Crc32cPortable(bytes)) << length;
    const size_t cut = length == 0 ? 0 : random() % length;
    const std::span<const uint8_t> span(bytes);
    EXPECT_EQ(Crc32c(span.subspan(cut), Crc32cPortable(span.first(cut))), Crc32c(bytes));
  }
}

TEST(Crc32cTest, CountsTheChecksumItselfAsZero) {
  std::vector<uint8_t> bytes(64, 7);
  std::vector<uint8_t> zeroed = bytes;
  std::fill_n(zeroed.begin() + 4, 4, 0);
  EXPECT_EQ(Crc32cWithoutField(bytes, 4), Crc32c(zeroed));
}

}  // namespace
}  // namespace bothy::disk::vhdx
