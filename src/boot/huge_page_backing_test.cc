#include "boot/huge_page_backing.h"

#include <gtest/gtest.h>

#include <memory>

namespace bothy::boot {
namespace {

using memory::AddressRange;
using memory::GuestMemory;
using memory::kMiB;

std::unique_ptr<GuestMemory> MemoryOf(uint64_t mib) {
  const auto layout =
      memory::ComputeLayout({.ram_bytes = mib * kMiB, .physical_address_bits = 40}).value();
  return GuestMemory::Create({.layout = layout}).value();
}

// Backed ranges become resident, by one page of each huge page at least; others don't.
TEST(HugePageBackingTest, BacksWhatIsAskedForBeforeTheRest) {
  const auto memory = MemoryOf(64);
  HugePageBacking backing(*memory, {AddressRange{16 * kMiB, 24 * kMiB}});
  EXPECT_EQ(memory->ResidentBytes(), 0U);
  backing.Back(17 * kMiB, 1);
  const uint64_t first = memory->ResidentBytes();
  EXPECT_GT(first, 0U);
  EXPECT_LE(first, 8 * kMiB);
  backing.Back(18 * kMiB, kMiB);
  EXPECT_EQ(memory->ResidentBytes(), first);
  ParallelWork work(2);
  backing.BackAll(work);
  ASSERT_TRUE(work.Finish().ok());
  EXPECT_GT(memory->ResidentBytes(), first);
  EXPECT_LE(memory->ResidentBytes(), 24 * kMiB);
}

TEST(HugePageBackingTest, BacksEachPieceOnce) {
  const auto memory = MemoryOf(64);
  HugePageBacking backing(*memory, {AddressRange{16 * kMiB, 8 * kMiB}});
  backing.Back(16 * kMiB, 8 * kMiB);
  ASSERT_TRUE(memory->WriteObject<uint32_t>(20 * kMiB, 0x1234'5678).ok());
  ParallelWork work(4);
  backing.BackAll(work);
  backing.Back(0, 64 * kMiB);
  ASSERT_TRUE(work.Finish().ok());
  EXPECT_EQ(*memory->ReadObject<uint32_t>(20 * kMiB), 0x1234'5678U);
}

TEST(HugePageBackingTest, OutsideItsRangesItDoesNothing) {
  const auto memory = MemoryOf(64);
  HugePageBacking backing(*memory, {AddressRange{16 * kMiB, 8 * kMiB}});
  backing.Back(0, 16 * kMiB);
  backing.Back(24 * kMiB, 40 * kMiB);
  EXPECT_EQ(memory->ResidentBytes(), 0U);
}

}  // namespace
}  // namespace bothy::boot
