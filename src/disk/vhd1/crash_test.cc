// What a crash at any moment leaves: an image that opens, is sound, and has what was flushed.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/every_crash.h"
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
        if (flushed.position < at) done = flushed.done;
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
        if (flushed.position < at) done = flushed.done;
      }
      ASSERT_EQ(CheckCrashed(crashed, history, done), "") << "round " << round;
      ASSERT_TRUE(Await((*disk)->Close(), both).ok());
    }
    before.resize(crashed.size());
    crashed.Peek(0, before);
  }
}

INSTANTIATE_TEST_SUITE_P(All, VhdCrashTest, testing::Values(Type::kDynamic, Type::kDifferencing));

// Resizing that is cut off anywhere: the image has the old size or the new one, and what was cut
// off never comes back, whoever has its room by now.
class VhdResizeCrashTest : public VhdCrashTest {
 protected:
  static constexpr uint64_t kBlock = kMinBlockBytes;
  static constexpr uint64_t kSmallBytes = 2 * kBlock + 3 * 512;

  std::vector<MemoryStorage*> Both(MemoryStorage& image) { return {&image, &parent_}; }
  std::unique_ptr<Disk> OpenIt(MemoryStorage& image) {
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(image), Options()), Both(image));
    CHECK_OK(disk.status());
    return *std::move(disk);
  }
  void Write(Disk& disk, MemoryStorage& image, uint64_t offset, uint64_t length, uint8_t value) {
    const std::vector<uint8_t> bytes(length, value);
    ASSERT_TRUE(Await(WriteAt(disk, offset, bytes), Both(image)).ok());
  }
  // Whether sectors hold `value`, or what the parent has when there is none.
  void ExpectAll(std::span<const uint8_t> disk, uint64_t begin, uint64_t end,
                 std::optional<uint8_t> value) {
    for (uint64_t at = begin; at < end; at += 512) {
      std::vector<uint8_t> wanted(512, value.value_or(0));
      if (!value && GetParam() == Type::kDifferencing) ParentSector(at / 512, wanted);
      ASSERT_TRUE(std::ranges::equal(disk.subspan(at, 512), wanted)) << at;
    }
  }
  // All blocks but the second, those that will be cut off first in the file.
  void Fill(MemoryStorage& image) {
    CreateOptions options = {
        .size_bytes = kDiskBytes, .type = GetParam(), .block_size_bytes = kMinBlockBytes};
    options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent_id_};
    ASSERT_TRUE(Await(Create(image, options), image).ok());
    std::unique_ptr<Disk> disk = OpenIt(image);
    for (uint64_t at = kDiskBytes - kBlock; at > kBlock; at -= kBlock) {
      Write(*disk, image, at, kBlock, 1);
    }
    Write(*disk, image, 0, kBlock, 1);
    ASSERT_TRUE(Await(disk->Close(), Both(image)).ok());
  }
  // The image goes on, whatever size it has: its second block takes what room there is.
  void GoOn(MemoryStorage& image) {
    std::unique_ptr<Disk> disk = OpenIt(image);
    Write(*disk, image, kBlock, kBlock, 2);
    ASSERT_TRUE(Await(disk->Close(), Both(image)).ok());
  }
  std::vector<uint8_t> Contents(MemoryStorage& image) {
    const auto report = Await(Check(image), image);
    CHECK_OK(report.status());
    EXPECT_TRUE(report->sound()) << report->problems.front().message;
    std::unique_ptr<Disk> disk = OpenIt(image);
    std::vector<uint8_t> bytes(disk->geometry().size_bytes);
    CHECK_OK(Await(ReadAt(*disk, 0, bytes), Both(image)));
    CHECK_OK(Await(disk->Close(), Both(image)));
    return bytes;
  }
  absl::Status ResizeIt(Storage& storage, MemoryStorage& image, uint64_t bytes) {
    ResizeOptions options = {.size_bytes = bytes, .discard_data = true};
    options.open_parent = Options().open_parent;
    return Await(Resize(storage, options), Both(image));
  }
  // Footers that differ are to be repaired first; all else that a crash leaves isn't.
  absl::Status ResizeCrashed(MemoryStorage& image, uint64_t bytes) {
    const auto report = Await(Check(image), image);
    if (!report.ok()) return report.status();
    if (!report->clean() && report->problems.front().field == "FooterCopy") {
      const auto repaired = Await(Repair(image), image);
      if (!repaired.ok()) return repaired.status();
    }
    return ResizeIt(image, image, bytes);
  }
};

TEST_P(VhdResizeCrashTest, WhatAShrinkCutOffDoesNotComeBack) {
  MemoryStorage image({.path = "child.vhd", .immediate = true});
  Fill(image);
  CrashRecorder recorder(image);
  ASSERT_TRUE(ResizeIt(recorder, image, kSmallBytes).ok());
  ForEachCrash(recorder, {.path = "child.vhd", .immediate = true}, 3, [&](MemoryStorage& crashed) {
    const bool shrunk = Contents(crashed).size() == kSmallBytes;
    GoOn(crashed);
    if (!shrunk) {
      ASSERT_TRUE(ResizeCrashed(crashed, kSmallBytes).ok());
    }
    ASSERT_TRUE(ResizeCrashed(crashed, kDiskBytes).ok());
    const std::vector<uint8_t> grown = Contents(crashed);
    ASSERT_EQ(grown.size(), kDiskBytes);
    ExpectAll(grown, 0, kBlock, 1);
    ExpectAll(grown, kBlock, 2 * kBlock, 2);
    ExpectAll(grown, 2 * kBlock, kSmallBytes, 1);
    ExpectAll(grown, kSmallBytes, kDiskBytes, 0);
    const auto repaired = Await(Repair(crashed), crashed);
    ASSERT_TRUE(repaired.ok());
    EXPECT_TRUE(Await(Check(crashed), crashed)->clean());
  });
}

TEST_P(VhdResizeCrashTest, GrowingAfterAnInterruptedShrinkIsAllOrNothing) {
  MemoryStorage image({.path = "child.vhd", .immediate = true});
  Fill(image);
  // Died as soon as the new size was there.
  MemoryStorage shrunk({.path = "child.vhd", .immediate = true});
  {
    CrashRecorder recorder(image);
    ASSERT_TRUE(ResizeIt(recorder, image, kSmallBytes).ok());
    recorder.Replay(3, 0, shrunk);
  }
  const auto report = Await(Check(shrunk), shrunk);
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(std::ranges::any_of(report->problems, [](const Problem& problem) {
    return problem.field == "BAT" && problem.severity == Severity::kNote;
  }));
  GoOn(shrunk);
  CrashRecorder recorder(shrunk);
  ASSERT_TRUE(ResizeIt(recorder, shrunk, kDiskBytes).ok());
  ForEachCrash(recorder, {.path = "child.vhd", .immediate = true}, 3, [&](MemoryStorage& crashed) {
    const std::vector<uint8_t> contents = Contents(crashed);
    ASSERT_TRUE(contents.size() == kSmallBytes || contents.size() == kDiskBytes);
    ExpectAll(contents, 0, kBlock, 1);
    ExpectAll(contents, kBlock, 2 * kBlock, 2);
    ExpectAll(contents, 2 * kBlock, kSmallBytes, 1);
    ExpectAll(contents, kSmallBytes, contents.size(), 0);
  });
}

// An image that has nothing of its own, not even the block that its end is in, whose parent reaches
// as far as it shall: cut off anywhere it shows nothing new of it, nor loses anything.
TEST_P(VhdResizeCrashTest, GrowingShowsNothingOfTheParent) {
  MemoryStorage image({.path = "child.vhd", .immediate = true});
  CreateOptions options = {
      .size_bytes = kSmallBytes, .type = GetParam(), .block_size_bytes = kMinBlockBytes};
  options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent_id_};
  ASSERT_TRUE(Await(Create(image, options), image).ok());
  CrashRecorder recorder(image);
  ASSERT_TRUE(ResizeIt(recorder, image, kDiskBytes + kBlock).ok());
  ForEachCrash(recorder, {.path = "child.vhd", .immediate = true}, 3, [&](MemoryStorage& crashed) {
    const std::vector<uint8_t> contents = Contents(crashed);
    ASSERT_TRUE(contents.size() == kSmallBytes || contents.size() == kDiskBytes + kBlock);
    ExpectAll(contents, 0, kSmallBytes, std::nullopt);
    ExpectAll(contents, kSmallBytes, contents.size(), 0);
    // And again from there, to a size within the parent's.
    ASSERT_TRUE(ResizeCrashed(crashed, kSmallBytes).ok());
    ASSERT_TRUE(ResizeCrashed(crashed, 3 * kBlock + 512).ok());
    const std::vector<uint8_t> grown = Contents(crashed);
    ExpectAll(grown, 0, kSmallBytes, std::nullopt);
    ExpectAll(grown, kSmallBytes, grown.size(), 0);
    const auto repaired = Await(Repair(crashed), crashed);
    ASSERT_TRUE(repaired.ok());
    EXPECT_TRUE(Await(Check(crashed), crashed)->clean());
  });
}

INSTANTIATE_TEST_SUITE_P(All, VhdResizeCrashTest,
                         testing::Values(Type::kDynamic, Type::kDifferencing));

}  // namespace
}  // namespace bothy::disk::vhd1
