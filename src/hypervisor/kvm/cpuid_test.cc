#include "hypervisor/kvm/cpuid.h"

#include <gtest/gtest.h>

#include <optional>

namespace bothy::hypervisor::kvm {
namespace {

kvm_cpuid_entry2 Entry(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                       uint32_t edx) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

// What a host with everything set would report, so that every masked bit shows.
std::vector<kvm_cpuid_entry2> AllOnes() {
  constexpr uint32_t k1 = 0xFFFF'FFFF;
  std::vector<kvm_cpuid_entry2> table;
  for (const uint32_t function : {0x1U, 0x6U, 0xBU, 0x80000001U, 0x80000007U, 0x8000001EU}) {
    table.push_back(Entry(function, 0, k1, k1, k1, k1));
  }
  table.push_back(Entry(0x4, 0, 0xFFFFC021, k1, k1, k1));         // L1 data cache
  table.push_back(Entry(0x4, 3, 0xFFFFC063, k1, k1, k1));         // L3
  table.push_back(Entry(0x8000001D, 3, 0xFFFFC063, k1, k1, k1));  // L3, AMD
  table.push_back(Entry(0x80000008, 0, 0x0030'3030, 0, k1, 0));
  return table;
}

std::optional<kvm_cpuid_entry2> Find(const std::vector<kvm_cpuid_entry2>& table, uint32_t function,
                                     uint32_t index = 0) {
  for (const kvm_cpuid_entry2& entry : table) {
    if (entry.function == function && entry.index == index) return entry;
  }
  return std::nullopt;
}

TEST(CpuidTest, EachProcessorHasItsOwnApicIdInEveryLeafThatTellsIt) {
  for (uint32_t id = 0; id < 8; ++id) {
    const auto table = BuildCpuid(AllOnes(), {.apic_id = id, .cpu_count = 8});
    EXPECT_EQ(Find(table, 0x1)->ebx >> 24, id);
    EXPECT_EQ(Find(table, 0xB, 0)->edx, id);
    EXPECT_EQ(Find(table, 0xB, 1)->edx, id);
    EXPECT_EQ(Find(table, 0x8000001E)->eax, id);
  }
}

TEST(CpuidTest, TopologyIsOneSocketOfSingleThreadedCores) {
  for (const uint32_t count : {1U, 2U, 3U, 8U, 200U}) {
    const auto table = BuildCpuid(AllOnes(), {.cpu_count = count});
    EXPECT_EQ(Find(table, 0x1)->ebx >> 16 & 0xFF, count);
    EXPECT_EQ(Find(table, 0x1)->edx >> 28 & 1, count > 1 ? 1U : 0U);
    EXPECT_EQ(Find(table, 0xB, 0)->ebx, 1U) << "threads a core";
    EXPECT_EQ(Find(table, 0xB, 0)->eax, 0U) << "bits that number threads";
    EXPECT_EQ(Find(table, 0xB, 1)->ebx, count);
    EXPECT_GE(1U << Find(table, 0xB, 1)->eax, count) << "room for every core's id";
    EXPECT_EQ(Find(table, 0x80000008)->ecx & 0xFF, count - 1);
    EXPECT_EQ(Find(table, 0x8000001E)->ebx >> 8 & 0xFF, 0U);
  }
}

TEST(CpuidTest, OnlyTheLastLevelCacheIsShared) {
  const auto table = BuildCpuid(AllOnes(), {.cpu_count = 6});
  EXPECT_EQ(Find(table, 0x4, 0)->eax >> 14 & 0xFFF, 0U);
  EXPECT_GE(Find(table, 0x4, 3)->eax >> 14 & 0xFFF, 5U);
  EXPECT_GE(Find(table, 0x8000001D, 3)->eax >> 14 & 0xFFF, 5U);
}

TEST(CpuidTest, InvariantTscIsWithheld) {
  EXPECT_EQ(Find(BuildCpuid(AllOnes(), {}), 0x80000007)->edx >> 8 & 1, 0U);
}

TEST(CpuidTest, GuestKnowsItsHypervisorAndTheTimersOfItsApic) {
  auto supported = AllOnes();
  supported[0].ecx = 0;
  EXPECT_EQ(Find(BuildCpuid(supported, {}), 0x1)->ecx, 1U << 31 | 1U << 21);
  EXPECT_EQ(Find(BuildCpuid(supported, {.tsc_deadline_timer = true}), 0x1)->ecx,
            1U << 31 | 1U << 24 | 1U << 21);
}

TEST(CpuidTest, AsynchronousPageFaultsAreWithheld) {
  const auto table = BuildCpuid(
      {Entry(0x40000000, 0, 0x40000001, 0, 0, 0), Entry(0x40000001, 0, ~0U, 0, 0, 0)}, {});
  EXPECT_EQ(Find(table, 0x40000000)->eax, 0x40000001U);
  EXPECT_EQ(Find(table, 0x40000001)->eax, ~(1U << 4 | 1U << 10 | 1U << 14));
}

TEST(CpuidTest, HostWithoutExtendedTopologyGetsNone) {
  const auto table = BuildCpuid({Entry(0x1, 0, 0, 0, 0, 0)}, {.cpu_count = 4});
  EXPECT_FALSE(Find(table, 0xB).has_value());
}

TEST(CpuidTest, AddressWidthIsTheGuestsUnderNestedPaging) {
  EXPECT_EQ(PhysicalAddressBits({}), 36U);
  EXPECT_EQ(PhysicalAddressBits({Entry(0x80000008, 0, 0x3028, 0, 0, 0)}), 40U);
  EXPECT_EQ(PhysicalAddressBits({Entry(0x80000008, 0, 0x2F'3034, 0, 0, 0)}), 47U);
  EXPECT_EQ(PhysicalAddressBits({Entry(0x80000008, 0, 0xFF'3034, 0, 0, 0)}), 52U);
}

}  // namespace
}  // namespace bothy::hypervisor::kvm
