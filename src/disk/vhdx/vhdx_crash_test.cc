// An image that is cut off at any moment: whatever of what no flush had covered is lost, kept or
// torn, it opens again, its tables are sound, what was flushed is there, and other sectors hold
// what they held or what was being written. BOTHY_DISK_CRASHES says how many crashes each shape
// gets.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/every_crash.h"
#include "disk/testing/random_load.h"
#include "disk/vhdx/test_images.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kOperations = 300;

uint64_t CrashesOr(uint64_t fallback) {
  const char* text = std::getenv("BOTHY_DISK_CRASHES");
  uint64_t crashes = 0;
  return text != nullptr && absl::SimpleAtoi(text, &crashes) ? crashes : fallback;
}

// What is wrong with the crashed image as `disk` shows it, or nothing.
std::string VerifyCrashed(Disk& disk, const SectorHistory& history,
                          const std::vector<uint32_t>& done,
                          const std::vector<MemoryStorage*>& storages) {
  std::vector<uint8_t> bytes(256 << 10);
  for (uint64_t at = 0; at < disk.geometry().size_bytes; at += bytes.size()) {
    const auto part =
        std::span(bytes).first(std::min<uint64_t>(bytes.size(), disk.geometry().size_bytes - at));
    const absl::Status status = Await(ReadAt(disk, at, part), std::span(storages));
    if (!status.ok()) return status.ToString();
    for (uint64_t i = 0; i < part.size(); i += 512) {
      const uint64_t sector = (at + i) / 512;
      std::string wrong =
          history.CheckCrashed(sector, part.subspan(i, 512), done.empty() ? 0 : done[sector]);
      if (!wrong.empty()) return wrong;
    }
  }
  return "";
}

class VhdxCrashTest : public testing::TestWithParam<Shape> {
 protected:
  // Runs a load, closing at the end, and keeps what it did.
  void Record(uint64_t seed) {
    recorder_.reset();
    images_ = std::make_unique<TestImages>(GetParam());
    history_ = std::make_unique<SectorHistory>(images_->NewHistory());
    recorder_ = std::make_unique<CrashRecorder>(images_->image());
    auto disk = images_->TryOpenImage(*recorder_, false, images_->both());
    ASSERT_TRUE(disk.ok()) << disk.status();
    RandomLoad::Options options;
    options.seed = seed;
    options.large_sectors = 3 * GetParam().block_bytes / 512;
    RandomLoad load(**disk, *history_, images_->both(), options);
    load.position = [this] { return recorder_->events(); };
    ASSERT_EQ(load.Run(kOperations), "");
    ASSERT_TRUE(Await((*disk)->Close(), images_->both()).ok());
    flushed_ = load.flushed();
  }

  void CrashAt(size_t at, uint64_t seed) {
    SCOPED_TRACE(absl::StrCat("after ", at, " of ", recorder_->events(), " changes, seed ", seed));
    MemoryStorage crashed({.path = "/images/child.vhdx", .seed = seed + 1});
    recorder_->Replay(at, seed, crashed);
    std::vector<uint32_t> done;
    for (const RandomLoad::Flushed& flush : flushed_) {
      if (flush.position < at) done = flush.done;
    }
    const std::vector<MemoryStorage*> storages = {&crashed, &images_->parent()};
    // First as somebody who mustn't change it.
    for (const bool read_only : {true, false}) {
      crashed.on_request = [read_only](const Request& request) {
        return read_only && request.operation != Operation::kRead
                   ? absl::PermissionDeniedError("changed by a reader")
                   : absl::OkStatus();
      };
      auto disk = images_->TryOpenImage(crashed, read_only, storages);
      ASSERT_TRUE(disk.ok()) << disk.status();
      ASSERT_EQ(VerifyCrashed(**disk, *history_, done, storages), "") << read_only;
      ASSERT_TRUE(Await((*disk)->Close(), std::span(storages)).ok());
      const auto report = Await(Check(crashed), crashed);
      ASSERT_TRUE(report.ok()) << report.status();
      // A crash may leave a header that is half written, space that nothing refers to, a log.
      for (const Problem& problem : report->problems) {
        const Severity worst =
            problem.field.starts_with("Header") && read_only ? Severity::kWarning : Severity::kNote;
        ASSERT_LE(problem.severity, worst) << problem.field << ": " << problem.message;
      }
    }
  }

  std::unique_ptr<TestImages> images_;
  std::unique_ptr<SectorHistory> history_;
  std::unique_ptr<CrashRecorder> recorder_;
  std::vector<RandomLoad::Flushed> flushed_;
};

TEST_P(VhdxCrashTest, LeavesASoundImageWithEverythingFlushed) {
  const uint64_t crashes = CrashesOr(60);
  std::mt19937_64 random(GetParam().seed);
  // Each recording is good for some.
  for (uint64_t done = 0; done < crashes;) {
    ASSERT_NO_FATAL_FAILURE(Record(random()));
    for (uint64_t i = 0; i < 60 && done < crashes; ++i, ++done) {
      ASSERT_NO_FATAL_FAILURE(CrashAt(random() % (recorder_->events() + 1), random() % 8));
    }
  }
}

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  uint64_t seed = 1;
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    for (const uint32_t sector : {512U, 4096U}) {
      Shape shape = {.type = type, .sector_bytes = sector};
      shape.disk_bytes = (4 << 20) + (256 << 10);
      shape.seed = seed++;
      shapes.push_back(shape);
    }
  }
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(All, VhdxCrashTest, testing::ValuesIn(Shapes()),
                         [](const auto& param) { return param.param.Name(); });

// A child that grows and is cut off anywhere: it has the old size or the new one, what it showed
// before, and nothing of what its parent has past the old end.
class VhdxGrowCrashTest : public testing::TestWithParam<uint64_t> {
 protected:
  static constexpr uint64_t kOldBytes = (3 << 20) + (512 << 10);

  absl::Status ResizeIt(Storage& storage, std::span<MemoryStorage* const> storages,
                        uint64_t bytes) {
    ResizeOptions options = {.size_bytes = bytes, .discard_data = true};
    options.open_parent = images_.parent_opener();
    return Await(Resize(storage, options), storages);
  }
  // What the disk holds, which grew or didn't. Empty when something is wrong with it.
  std::vector<uint8_t> Contents(MemoryStorage& image) {
    const std::vector<MemoryStorage*> storages = {&image, &images_.parent()};
    auto disk = images_.TryOpenImage(image, false, storages);
    EXPECT_TRUE(disk.ok()) << disk.status();
    if (!disk.ok()) return {};
    std::vector<uint8_t> bytes(std::min<uint64_t>((*disk)->geometry().size_bytes, 10 << 20));
    EXPECT_TRUE(Await(ReadAt(**disk, 0, std::span(bytes)), std::span(storages)).ok());
    EXPECT_TRUE(Await((*disk)->Close(), std::span(storages)).ok());
    EXPECT_TRUE(Await(Check(image), image)->sound());
    return bytes;
  }

  TestImages images_{{.type = Type::kDifferencing}};
};

TEST_P(VhdxGrowCrashTest, ShowsNothingOfTheParent) {
  ASSERT_TRUE(ResizeIt(images_.image(), images_.both(), kOldBytes).ok());
  const std::vector<uint8_t> before = Contents(images_.image());
  ASSERT_EQ(before.size(), kOldBytes);
  CrashRecorder recorder(images_.image());
  ASSERT_TRUE(ResizeIt(recorder, images_.both(), GetParam()).ok());
  size_t grown = 0;
  ForEachCrash(recorder, {.path = "/images/child.vhdx", .immediate = true}, 3,
               [&](MemoryStorage& crashed) {
                 const std::vector<uint8_t> now = Contents(crashed);
                 ASSERT_TRUE(now.size() == kOldBytes ||
                             now.size() == std::min<uint64_t>(GetParam(), 10 << 20))
                     << now.size();
                 const auto old = std::span(now).first(kOldBytes);
                 ASSERT_TRUE(std::ranges::equal(old, before));
                 const auto gained = std::span(now).subspan(kOldBytes);
                 ASSERT_TRUE(std::ranges::all_of(gained, [](uint8_t byte) { return byte == 0; }));
                 if (!gained.empty()) ++grown;
               });
  EXPECT_GT(grown, 0U);
}

// Within the block, within the parent, past its end, and moving the BAT.
INSTANTIATE_TEST_SUITE_P(To, VhdxGrowCrashTest,
                         testing::Values((4 << 20) - 4096, (6 << 20) + 4096, 20 << 20,
                                         uint64_t{300'000} << 20));

}  // namespace
}  // namespace bothy::disk::vhdx
