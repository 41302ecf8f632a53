// What a crash at any moment leaves: an image that opens, is sound, and has what was flushed.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/testing/borrowed_storage.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/random_load.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kDiskBytes = 6 << 20;
constexpr uint64_t kSectors = kDiskBytes / 512;

void ParentSector(uint64_t sector, std::span<uint8_t> bytes) {
  if (sector % 5 == 0) SectorHistory::Fill(sector, 1'000'000, bytes);
}

class VhdCrashTest : public testing::TestWithParam<Type> {
 protected:
  void SetUp() override {
    if (GetParam() != Type::kDifferencing) return;
    const CreateOptions options = {.size_bytes = kDiskBytes, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(parent_, options), parent_).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(parent_), OpenOptions()), parent_);
    ASSERT_TRUE(disk.ok()) << disk.status();
    for (uint64_t sector = 0; sector < kSectors; sector += 5) {
      std::array<uint8_t, 512> bytes{};
      ParentSector(sector, bytes);
      ASSERT_TRUE(Await(WriteAt(**disk, sector * 512, bytes), parent_).ok());
    }
    ASSERT_TRUE(Await((*disk)->Close(), parent_).ok());
    parent_id_ = *(*disk)->linkage();
  }

  OpenOptions Options(bool read_only = false) {
    OpenOptions options;
    options.read_only = read_only;
    options.open_parent = [this](const ParentReference&) {
      OpenOptions parent;
      parent.read_only = true;
      return Open(std::make_unique<BorrowedStorage>(parent_), std::move(parent));
    };
    return options;
  }

  SectorHistory NewHistory() {
    return SectorHistory(
        kSectors, GetParam() == Type::kDifferencing ? ParentSector : SectorHistory::Initial());
  }

  // Empty when the image of `storage` is as good as it must be after `done`.
  std::string CheckCrashed(MemoryStorage& storage, const SectorHistory& history,
                           const std::vector<uint32_t>& done) {
    const auto report = Await(Check(storage), storage);
    if (!report.ok()) return report.status().ToString();
    if (!report->sound()) {
      return absl::StrCat("unsound: ", report->problems.front().field, ": ",
                          report->problems.front().message);
    }
    std::vector<MemoryStorage*> both = {&storage, &parent_};
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(storage), Options(true)), both);
    if (!disk.ok()) return disk.status().ToString();
    std::vector<uint8_t> bytes(kDiskBytes);
    const absl::Status read = Await(ReadAt(**disk, 0, bytes), both);
    if (!read.ok()) return read.ToString();
    for (uint64_t sector = 0; sector < kSectors; ++sector) {
      std::string wrong = history.CheckCrashed(
          sector, std::span<const uint8_t>(bytes).subspan(sector * 512, 512), done[sector]);
      if (!wrong.empty()) return wrong;
    }
    return "";
  }

  MemoryStorage parent_{{.path = "base.vhd", .immediate = false}};
  Guid parent_id_;
};

TEST_P(VhdCrashTest, KeepsWhatWasFlushedAndStaysSound) {
  const uint64_t rounds = OperationsOr(300) / 100;
  for (uint64_t seed = 1; seed <= rounds; ++seed) {
    MemoryStorage image({.path = "child.vhd", .immediate = false, .seed = SeedFrom(seed)});
    CreateOptions options = {
        .size_bytes = kDiskBytes, .type = GetParam(), .block_size_bytes = kMinBlockBytes};
    options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent_id_};
    ASSERT_TRUE(Await(Create(image, options), image).ok());

    CrashRecorder recorder(image);
    SectorHistory history = NewHistory();
    std::vector<MemoryStorage*> both = {&image, &parent_};
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(recorder), Options()), both);
    ASSERT_TRUE(disk.ok()) << disk.status();
    RandomLoad load(**disk, history, both, {.seed = seed, .max_in_flight = 8});
    load.position = [&recorder] { return recorder.events(); };
    ASSERT_EQ(load.Run(200), "");
    const size_t in_use = recorder.events();
    ASSERT_TRUE(Await((*disk)->Close(), both).ok());
    ASSERT_GT(recorder.events(), in_use);

    const size_t step = std::max<size_t>(recorder.events() / 60, 1);
    for (size_t at = seed % step; at <= recorder.events(); at += step) {
      std::vector<uint32_t> done(kSectors, 0);
      for (const RandomLoad::Flushed& flushed : load.flushed()) {
        if (flushed.position <= at) done = flushed.done;
      }
      for (uint64_t fate = 0; fate < 3; ++fate) {
        MemoryStorage crashed({.path = "crashed.vhd", .immediate = true});
        recorder.Replay(at, fate == 0 ? 0 : SeedFrom(fate), crashed);
        ASSERT_EQ(CheckCrashed(crashed, history, done), "")
            << "seed " << seed << ", after " << at << " of " << recorder.events()
            << " changes, fate " << fate;
      }
    }
  }
}

// A crashed image goes on: what the crash left is used again, nothing shows through.
TEST_P(VhdCrashTest, GoesOnAfterCrashes) {
  MemoryStorage image({.path = "child.vhd", .immediate = false, .seed = 7});
  CreateOptions options = {
      .size_bytes = kDiskBytes, .type = GetParam(), .block_size_bytes = kMinBlockBytes};
  options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent_id_};
  ASSERT_TRUE(Await(Create(image, options), image).ok());
  std::vector<uint8_t> before(image.size());
  image.Peek(0, before);
  for (uint64_t round = 1; round <= OperationsOr(500) / 50; ++round) {
    MemoryStorage now({.path = "child.vhd", .immediate = false, .seed = SeedFrom(round)});
    now.Poke(0, before);
    MemoryStorage crashed({.path = "child.vhd", .immediate = true});
    std::vector<MemoryStorage*> both = {&now, &parent_};
    {
      CrashRecorder recorder(now);
      auto disk = Await(Open(std::make_unique<BorrowedStorage>(recorder), Options()), both);
      ASSERT_TRUE(disk.ok()) << disk.status();
      // What is there now is the beginning of this round's history.
      std::vector<uint8_t> contents(kDiskBytes);
      ASSERT_TRUE(Await(ReadAt(**disk, 0, contents), both).ok());
      SectorHistory history(kSectors, [&contents](uint64_t sector, std::span<uint8_t> bytes) {
        std::copy_n(contents.begin() + static_cast<ptrdiff_t>(sector * 512), 512, bytes.begin());
      });
      // A child's discarded sectors show its parent's, which this history doesn't know of.
      RandomLoad load(**disk, history, both,
                      {.seed = round, .max_in_flight = 8, .discard = GetParam() == Type::kDynamic});
      load.position = [&recorder] { return recorder.events(); };
      ASSERT_EQ(load.Run(100), "");
      const size_t at = recorder.events() * (round % 4 + 1) / 5;
      recorder.Replay(at, SeedFrom(round), crashed);
      std::vector<uint32_t> done(kSectors, 0);
      for (const RandomLoad::Flushed& flushed : load.flushed()) {
        if (flushed.position <= at) done = flushed.done;
      }
      ASSERT_EQ(CheckCrashed(crashed, history, done), "") << "round " << round;
      ASSERT_TRUE(Await((*disk)->Close(), both).ok());
    }
    before.resize(crashed.size());
    crashed.Peek(0, before);
  }
}

INSTANTIATE_TEST_SUITE_P(All, VhdCrashTest, testing::Values(Type::kDynamic, Type::kDifferencing));

}  // namespace
}  // namespace bothy::disk::vhd1
