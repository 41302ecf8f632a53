#include "boot/working_set.h"

#include <gtest/gtest.h>

namespace bothy::boot {
namespace {

using memory::AddressRange;
using memory::kMiB;

memory::Layout LayoutOf(uint64_t mib) {
  return memory::ComputeLayout({.ram_bytes = mib * kMiB, .physical_address_bits = 40}).value();
}

uint64_t Total(const std::vector<AddressRange>& ranges) {
  uint64_t total = 0;
  for (const AddressRange& range : ranges) total += range.size;
  return total;
}

TEST(BootWorkingSetTest, SmallKernelHasNone) {
  EXPECT_TRUE(BootWorkingSet({kMiB, 4096}, 0, LayoutOf(512)).empty());
}

TEST(BootWorkingSetTest, CoversImageInitrdAndPageDescriptors) {
  const auto ranges = BootWorkingSet({16 * kMiB, 32 * kMiB}, 5 * kMiB, LayoutOf(512));
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges[0].base, 16 * kMiB);
  EXPECT_GE(ranges[0].end(), 48 * kMiB);
  EXPECT_EQ(ranges[1].end(), 512 * kMiB);
  EXPECT_GE(ranges[1].size, 13 * kMiB);
}

TEST(BootWorkingSetTest, AllowancesStayASmallPartOfRam) {
  const AddressRange kernel{16 * kMiB, 32 * kMiB};
  for (const uint64_t mib : {64U, 128U, 512U, 6144U, 65536U}) {
    const uint64_t guessed = Total(BootWorkingSet(kernel, 0, LayoutOf(mib))) - kernel.size;
    EXPECT_LE(guessed, mib * kMiB / 8 + mib * kMiB / 64 + 4 * kMiB);
    EXPECT_LE(guessed, 58 * kMiB);
  }
}

}  // namespace
}  // namespace bothy::boot
