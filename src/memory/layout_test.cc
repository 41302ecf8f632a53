#include "memory/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bothy::memory {
namespace {

using ::testing::StartsWith;

LayoutOptions Options(uint64_t ram_mib) {
  return {.ram_bytes = ram_mib * kMiB, .physical_address_bits = 40};
}

uint64_t TotalRam(const Layout& layout) {
  uint64_t total = 0;
  for (const RamRange& range : layout.ram) {
    EXPECT_EQ(range.file_offset, total) << "RAM file has a hole";
    total += range.guest.size;
  }
  return total;
}

TEST(LayoutTest, SmallGuestHasOneRangeFromZero) {
  const auto layout = ComputeLayout(Options(128));
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->ram.size(), 1U);
  EXPECT_EQ(layout->ram[0].guest, (AddressRange{0, 128 * kMiB}));
}

TEST(LayoutTest, RamContinuesAboveTheLowGap) {
  const auto layout = ComputeLayout(Options(6144));
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->ram.size(), 2U);
  EXPECT_EQ(layout->ram[0].guest, (AddressRange{0, 3 * kGiB}));
  EXPECT_EQ(layout->ram[1].guest, (AddressRange{k4GiB, 3 * kGiB}));
  EXPECT_GE(layout->pci_mmio64.base, 7 * kGiB);
}

TEST(LayoutTest, RamThatDoesNotFitBelowTheHighWindowContinuesAboveIt) {
  auto options = Options(8192);
  options.high_mmio_base_bytes = 5 * kGiB;
  options.high_mmio_gap_bytes = 2 * kGiB;
  const auto layout = ComputeLayout(options);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->ram.size(), 3U);
  EXPECT_EQ(layout->ram[1].guest, (AddressRange{k4GiB, 1 * kGiB}));
  EXPECT_EQ(layout->ram[2].guest, (AddressRange{7 * kGiB, 4 * kGiB}));
  EXPECT_EQ(TotalRam(*layout), 8 * kGiB);
}

TEST(LayoutTest, WindowAtFourGiBPutsAllHighRamAboveIt) {
  auto options = Options(4096);
  options.high_mmio_base_bytes = k4GiB;
  options.high_mmio_gap_bytes = kGiB;
  const auto layout = ComputeLayout(options);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->ram.size(), 2U);
  EXPECT_EQ(layout->ram[1].guest.base, 5 * kGiB);
}

TEST(LayoutTest, DefaultWindowLiesAboveAllRamThatCanBePlugged) {
  auto options = Options(512);
  options.max_ram_bytes = 100 * kGiB;
  const auto layout = ComputeLayout(options);
  ASSERT_TRUE(layout.ok());
  EXPECT_GE(layout->pci_mmio64.base, 101 * kGiB);
  EXPECT_EQ(layout->pci_mmio64.size, 64 * kGiB);
}

TEST(LayoutTest, DefaultWindowShrinksToWhatFits) {
  auto options = Options(512);
  options.physical_address_bits = 36;
  const auto layout = ComputeLayout(options);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->pci_mmio64.end(), uint64_t{1} << 36);
}

TEST(LayoutTest, NothingOverlapsForEveryGap) {
  for (uint64_t gap = 512; gap <= 3072; gap += 64) {
    auto options = Options(20480);
    options.low_mmio_gap_bytes = gap * kMiB;
    options.high_mmio_base_bytes = 6 * kGiB;
    options.high_mmio_gap_bytes = 3 * kGiB;
    const auto layout = ComputeLayout(options);
    ASSERT_TRUE(layout.ok());
    EXPECT_EQ(TotalRam(*layout), 20 * kGiB);
    std::vector<AddressRange> all = layout->pci_mmio32;
    all.push_back(layout->ecam);
    all.push_back(layout->pci_mmio64);
    all.push_back({kIoApicBase, kPageSize});
    all.push_back({kLocalApicBase, kPageSize});
    for (const RamRange& range : layout->ram) all.push_back(range.guest);
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t j = i + 1; j < all.size(); ++j) EXPECT_FALSE(all[i].Overlaps(all[j])) << gap;
    }
  }
}

struct BadCase {
  const char* field;
  absl::StatusCode code;
  LayoutOptions options;
};

class BadLayoutTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadLayoutTest, NamesTheFieldAtFault) {
  const auto layout = ComputeLayout(GetParam().options);
  EXPECT_EQ(layout.status().code(), GetParam().code);
  EXPECT_THAT(std::string(layout.status().message()), StartsWith(GetParam().field));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

INSTANTIATE_TEST_SUITE_P(
    Fields, BadLayoutTest,
    ::testing::Values(
        BadCase{"memory_mb:", kInvalid, {.ram_bytes = 0, .physical_address_bits = 40}},
        BadCase{"memory_mb:",
                kExhausted,
                {.ram_bytes = uint64_t{1} << 40, .physical_address_bits = 40}},
        BadCase{"memory_mb:",
                kExhausted,
                {.ram_bytes = (uint64_t{1} << 40) - kMiB, .physical_address_bits = 40}},
        BadCase{"low_mmio_gap_in_mb:",
                kInvalid,
                {.ram_bytes = kGiB, .low_mmio_gap_bytes = 511 * kMiB, .physical_address_bits = 40}},
        BadCase{
            "low_mmio_gap_in_mb:",
            kInvalid,
            {.ram_bytes = kGiB, .low_mmio_gap_bytes = 3073 * kMiB, .physical_address_bits = 40}},
        BadCase{
            "high_mmio_base_in_mb:",
            kInvalid,
            {.ram_bytes = kGiB, .high_mmio_base_bytes = 4095 * kMiB, .physical_address_bits = 40}},
        BadCase{"high_mmio_base_in_mb:",
                kInvalid,
                {.ram_bytes = kGiB,
                 .high_mmio_base_bytes = uint64_t{1} << 40,
                 .physical_address_bits = 40}},
        BadCase{"high_mmio_gap_in_mb:",
                kInvalid,
                {.ram_bytes = kGiB,
                 .high_mmio_base_bytes = uint64_t{1} << 39,
                 .high_mmio_gap_bytes = uint64_t{1} << 40,
                 .physical_address_bits = 40}}));

TEST(LayoutTest, DeviceMemoryLiesAboveEverythingElse) {
  const auto small = ComputeLayout({.ram_bytes = 1 * kGiB, .physical_address_bits = 40});
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(small->device_memory.base, small->pci_mmio64.end());
  EXPECT_EQ(small->device_memory.end(), uint64_t{1} << 40);
  // RAM behind the window, and RAM that may still come there.
  const auto large = ComputeLayout({.ram_bytes = 16 * kGiB,
                                    .max_ram_bytes = 32 * kGiB,
                                    .high_mmio_base_bytes = 8 * kGiB,
                                    .physical_address_bits = 40});
  ASSERT_TRUE(large.ok());
  EXPECT_EQ(large->device_memory.base, large->pci_mmio64.end() + 25 * kGiB);
  const auto full = ComputeLayout({.ram_bytes = 1 * kGiB, .physical_address_bits = 36});
  ASSERT_TRUE(full.ok());
  EXPECT_LE(full->device_memory.end(), uint64_t{1} << 36);
}

}  // namespace
}  // namespace bothy::memory
