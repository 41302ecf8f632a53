#include "chipset/serial/output_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace bothy::chipset {
namespace {

void Append(OutputRing& ring, const std::string& text) {
  ring.Append({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::string Copy(const OutputRing& ring, uint64_t position, size_t size = 100) {
  std::string text(size, '\0');
  text.resize(ring.CopyFrom(position, {reinterpret_cast<uint8_t*>(text.data()), size}));
  return text;
}

TEST(OutputRingTest, KeepsEverythingUntilItIsFull) {
  OutputRing ring(8);
  EXPECT_EQ(Copy(ring, 0), "");
  Append(ring, "abc");
  Append(ring, "");
  Append(ring, "defgh");
  EXPECT_EQ(ring.begin(), 0u);
  EXPECT_EQ(Copy(ring, 0), "abcdefgh");
  EXPECT_EQ(Copy(ring, 2, 3), "cde");
  EXPECT_EQ(Copy(ring, 8), "");
}

TEST(OutputRingTest, DropsTheOldest) {
  OutputRing ring(8);
  Append(ring, "abcdef");
  Append(ring, "ghijk");
  EXPECT_EQ(ring.begin(), 3u);
  EXPECT_EQ(ring.end(), 11u);
  EXPECT_EQ(Copy(ring, 3), "defghijk");
  EXPECT_EQ(Copy(ring, 7, 2), "hi");
}

TEST(OutputRingTest, TakesMoreThanItHolds) {
  OutputRing ring(8);
  Append(ring, "ab");
  Append(ring, "0123456789ABCDEF!");
  EXPECT_EQ(ring.end(), 19u);
  EXPECT_EQ(ring.begin(), 11u);
  EXPECT_EQ(Copy(ring, 11), "9ABCDEF!");
}

TEST(OutputRingTest, AgreesWithAStringThatForgets) {
  OutputRing ring(64);
  std::string model;
  for (int i = 0; i < 1000; ++i) {
    const std::string piece(static_cast<size_t>(i * 7 % 90), static_cast<char>('a' + i % 26));
    Append(ring, piece);
    model += piece;
    ASSERT_EQ(ring.end(), model.size());
    ASSERT_EQ(Copy(ring, ring.begin()), model.substr(ring.begin()));
  }
}

}  // namespace
}  // namespace bothy::chipset
