#include "boot/initrd_placement.h"

#include <gtest/gtest.h>

namespace bothy::boot {
namespace {

using memory::kGiB;
using memory::kMiB;

constexpr memory::AddressRange kKernel{16 * kMiB, 48 * kMiB};

memory::Layout LayoutOf(uint64_t ram_mib, uint64_t low_gap_mib = 1024) {
  return *memory::ComputeLayout({.ram_bytes = ram_mib * kMiB,
                                 .low_mmio_gap_bytes = low_gap_mib * kMiB,
                                 .physical_address_bits = 40});
}

TEST(InitrdPlacementTest, LiesAtTheTopOfLowRam) {
  EXPECT_EQ(PlaceInitrd({.initrd_bytes = 5'000,
                         .kernel = kKernel,
                         .preferred_limit = 2 * kGiB,
                         .limit = UINT64_MAX},
                        LayoutOf(512)),
            512 * kMiB - 8192);
  EXPECT_EQ(PlaceInitrd({.initrd_bytes = 5'000,
                         .kernel = kKernel,
                         .preferred_limit = UINT64_MAX,
                         .limit = UINT64_MAX},
                        LayoutOf(6144)),
            3 * kGiB - 8192);
}

TEST(InitrdPlacementTest, KeepsThePreferredLimitWhereItFits) {
  InitrdPlacementOptions options{.initrd_bytes = 100 * kMiB,
                                 .kernel = kKernel,
                                 .preferred_limit = 256 * kMiB,
                                 .limit = UINT64_MAX};
  EXPECT_EQ(PlaceInitrd(options, LayoutOf(512)), 156 * kMiB);
  options.initrd_bytes = 300 * kMiB;
  EXPECT_EQ(PlaceInitrd(options, LayoutOf(512)), 212 * kMiB);
}

TEST(InitrdPlacementTest, GoesAbove4GiBOnlyWhereTheKernelAllows) {
  // 1 GiB of low RAM, 3 GiB of high RAM.
  const memory::Layout layout = LayoutOf(4096, 3072);
  InitrdPlacementOptions options{.initrd_bytes = 2 * kGiB,
                                 .kernel = kKernel,
                                 .preferred_limit = 2 * kGiB,
                                 .limit = UINT64_MAX};
  EXPECT_EQ(PlaceInitrd(options, layout), 5 * kGiB);
  options.limit = memory::k4GiB;
  EXPECT_EQ(PlaceInitrd(options, layout), std::nullopt);
}

TEST(InitrdPlacementTest, GoesBelowTheKernelWhenThatIsTheOnlyPlace) {
  const memory::Layout layout = LayoutOf(64);
  InitrdPlacementOptions options{
      .initrd_bytes = 10 * kMiB, .kernel = kKernel, .preferred_limit = 2 * kGiB, .limit = 2 * kGiB};
  EXPECT_EQ(PlaceInitrd(options, layout), 6 * kMiB);
  options.initrd_bytes = 15 * kMiB;
  EXPECT_EQ(PlaceInitrd(options, layout), kMiB);
  options.initrd_bytes += 1;
  EXPECT_EQ(PlaceInitrd(options, layout), std::nullopt);
}

TEST(InitrdPlacementTest, HugeInitrdsDontOverflow) {
  EXPECT_EQ(PlaceInitrd({.initrd_bytes = UINT64_MAX,
                         .kernel = kKernel,
                         .preferred_limit = 2 * kGiB,
                         .limit = UINT64_MAX},
                        LayoutOf(6144)),
            std::nullopt);
}

TEST(InitrdPlacementTest, UsableRamLeavesOutTheFirstMegabyte) {
  EXPECT_EQ(UsableRamBytes(LayoutOf(6144)), 6 * kGiB - kMiB);
  EXPECT_EQ(UsableRamBytes(LayoutOf(1)), 0U);
}

}  // namespace
}  // namespace bothy::boot
