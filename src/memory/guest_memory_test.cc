#include "memory/guest_memory.h"

#include <gtest/gtest.h>

#include <numeric>
#include <stop_token>

namespace bothy::memory {
namespace {

std::unique_ptr<GuestMemory> MakeMemory(uint64_t mib, bool populate = false) {
  LayoutOptions options{.ram_bytes = mib * kMiB, .physical_address_bits = 40};
  auto layout = ComputeLayout(options);
  EXPECT_TRUE(layout.ok());
  auto memory = GuestMemory::Create({.layout = *layout, .populate_and_lock = populate});
  EXPECT_TRUE(memory.ok()) << memory.status();
  return std::move(memory).value();
}

TEST(GuestMemoryTest, ReadsBackWhatWasWritten) {
  auto memory = MakeMemory(16);
  std::vector<uint8_t> in(3 * kPageSize);
  std::iota(in.begin(), in.end(), 1);
  ASSERT_TRUE(memory->Write(4093, in).ok());
  std::vector<uint8_t> out(in.size());
  ASSERT_TRUE(memory->Read(4093, out).ok());
  EXPECT_EQ(in, out);
}

TEST(GuestMemoryTest, RefusesWhatIsNotRamAndCopiesNothing) {
  auto memory = MakeMemory(4096 + 16);
  std::vector<uint8_t> bytes(2 * kPageSize, 0xAA);
  const uint64_t hole = memory->layout().low_mmio.base;
  EXPECT_EQ(memory->Write(hole - kPageSize, bytes).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(memory->ReadObject<uint8_t>(hole - 1).value(), 0);
  EXPECT_EQ(memory->Read(hole, bytes).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(memory->Read(UINT64_MAX - 4, bytes).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(memory->Zero(hole - 4, 8).code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(memory->HostRange(hole - 4, 8).ok());
  EXPECT_TRUE(memory->HostRange(hole - 4, 4).ok());
}

TEST(GuestMemoryTest, PagesAppearAsTheyAreTouchedAndGoOnDiscard) {
  auto memory = MakeMemory(64);
  EXPECT_EQ(memory->ResidentBytes(), 0U);
  ASSERT_TRUE(memory->WriteObject<uint32_t>(8 * kMiB, 7).ok());
  EXPECT_GT(memory->ResidentBytes(), 0U);
  ASSERT_TRUE(memory->DiscardAll().ok());
  EXPECT_EQ(memory->ResidentBytes(), 0U);
  EXPECT_EQ(memory->ReadObject<uint32_t>(8 * kMiB).value(), 0U);
}

TEST(GuestMemoryTest, PartsAreGivenBackByWholePages) {
  auto memory = MakeMemory(64);
  for (uint64_t page = 0; page < 8; ++page) {
    ASSERT_TRUE(memory->WriteObject<uint64_t>(8 * kMiB + page * kPageSize, 7).ok());
  }
  const uint64_t before = memory->ResidentBytes();
  const auto range = memory->HostRange(8 * kMiB + 1, 4 * kPageSize);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(memory->Discard(*range), 3 * kPageSize);
  EXPECT_EQ(memory->ResidentBytes(), before - 3 * kPageSize);
  EXPECT_EQ(memory->ReadObject<uint64_t>(8 * kMiB).value(), 7U);
  EXPECT_EQ(memory->ReadObject<uint64_t>(8 * kMiB + kPageSize).value(), 0U);
  EXPECT_EQ(memory->ReadObject<uint64_t>(8 * kMiB + 4 * kPageSize).value(), 7U);
  EXPECT_EQ(memory->Discard(range->first(kPageSize)), 0U);
  EXPECT_EQ(memory->Discard({}), 0U);
  // What isn't all RAM.
  std::vector<uint8_t> other(2 * kPageSize, 7);
  EXPECT_EQ(memory->Discard(other), 0U);
  EXPECT_EQ(memory->Discard({range->data(), 64 * kMiB}), 0U);
  EXPECT_EQ(other, std::vector<uint8_t>(2 * kPageSize, 7));
}

TEST(GuestMemoryTest, LockedMemoryIsNotGivenBack) {
  auto memory = MakeMemory(8, true);
  ASSERT_TRUE(memory->WriteObject<uint64_t>(kMiB, 7).ok());
  EXPECT_EQ(memory->Discard(*memory->HostRange(kMiB, kMiB)), 0U);
  EXPECT_EQ(memory->ReadObject<uint64_t>(kMiB).value(), 7U);
}

TEST(GuestMemoryTest, HugePagesKeepContentsAndStayWithinTheRange) {
  auto memory = MakeMemory(64);
  ASSERT_TRUE(memory->WriteObject<uint32_t>(17 * kMiB, 7).ok());
  memory->BackWithHugePages(16 * kMiB + 1, 8 * kMiB);
  EXPECT_EQ(memory->ReadObject<uint32_t>(17 * kMiB).value(), 7U);
  EXPECT_EQ(memory->ReadObject<uint32_t>(20 * kMiB).value(), 0U);
  EXPECT_LE(memory->ResidentBytes(), 6 * kMiB + kPageSize);
  memory->BackWithHugePages(60 * kMiB, UINT64_MAX);
  memory->BackWithHugePages(UINT64_MAX - 5, 100);
  EXPECT_LE(memory->ResidentBytes(), 10 * kMiB + kPageSize);
}

TEST(GuestMemoryTest, PopulatedMemoryIsAllResident) {
  auto memory = MakeMemory(8, true);
  EXPECT_EQ(memory->ResidentBytes(), 8 * kMiB);
}

TEST(GuestMemoryTest, PopulatingIsGivenUpWhenAStopIsRequested) {
  auto layout = ComputeLayout({.ram_bytes = 16 * kMiB, .physical_address_bits = 40});
  ASSERT_TRUE(layout.ok());
  std::stop_source stop;
  stop.request_stop();
  const auto memory =
      GuestMemory::Create({.layout = *layout, .populate_and_lock = true, .stop = stop.get_token()});
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kCancelled);
}

TEST(GuestMemoryTest, PopulatingMoreThanTheHostHasFailsEarly) {
  auto layout = ComputeLayout({.ram_bytes = uint64_t{1} << 42, .physical_address_bits = 48});
  ASSERT_TRUE(layout.ok());
  const auto memory = GuestMemory::Create({.layout = *layout, .populate_and_lock = true});
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(GuestMemoryTest, ADevicesMemoryIsReachedLikeRamUntilItIsRemoved) {
  auto memory = MakeMemory(8);
  std::vector<uint8_t> device(2 * kPageSize);
  constexpr uint64_t kGpa = 64 * kGiB;
  ASSERT_TRUE(memory->AddDeviceMemory(kGpa, device, Access::kWrite).ok());
  EXPECT_TRUE(memory->WriteObject<uint32_t>(kGpa + 4096, 7).ok());
  EXPECT_EQ(device[4096], 7);
  EXPECT_EQ(memory->HostRange(kGpa + 8, 16)->data(), device.data() + 8);
  EXPECT_FALSE(memory->HostRange(kGpa + 8191, 2).ok());
  EXPECT_TRUE(
      absl::IsAlreadyExists(memory->AddDeviceMemory(kGpa + kPageSize, device, Access::kWrite)));
  EXPECT_TRUE(absl::IsAlreadyExists(memory->AddDeviceMemory(kPageSize, device, Access::kWrite)));
  EXPECT_TRUE(memory->RemoveDeviceMemory(kGpa).ok());
  EXPECT_FALSE(memory->HostRange(kGpa + 8, 16).ok());
  EXPECT_TRUE(absl::IsNotFound(memory->RemoveDeviceMemory(kGpa)));
}

TEST(GuestMemoryTest, ReadOnlyDeviceMemoryIsNotWrittenTo) {
  auto memory = MakeMemory(8);
  std::vector<uint8_t> device(kPageSize, 5);
  constexpr uint64_t kGpa = 64 * kGiB;
  ASSERT_TRUE(memory->AddDeviceMemory(kGpa, device, Access::kRead).ok());
  EXPECT_EQ(memory->ReadObject<uint8_t>(kGpa).value(), 5);
  EXPECT_FALSE(memory->WriteObject<uint8_t>(kGpa, 7).ok());
  EXPECT_FALSE(memory->HostRange(kGpa, 8).ok());
  EXPECT_TRUE(memory->HostRange(kGpa, 8, Access::kRead).ok());
}

}  // namespace
}  // namespace bothy::memory
