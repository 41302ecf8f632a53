#include "disk/data_survey.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "disk/testing/fake_disk.h"
#include "support/unique_fd.h"

namespace bothy::disk {
namespace {

constexpr uint64_t kTiB = uint64_t{1} << 40;

// A file of a terabyte: a page of zeros and, where it is told to, one that isn't; else a hole.
class HoleyFile final : public Storage {
 public:
  HoleyFile() : file_(::memfd_create("image", MFD_CLOEXEC)) {
    CHECK(::ftruncate(file_.get(), kTiB) == 0);
  }
  void Fill(uint64_t offset, uint8_t value) {
    const std::vector<uint8_t> page(4096, value);
    CHECK(::pwrite(file_.get(), page.data(), page.size(), static_cast<off_t>(offset)) == 4096);
  }
  void Submit(Request& request) override {
    CHECK(request.operation == Operation::kRead && request.buffers.size() == 1);
    bytes_read += request.length;
    CHECK(::pread(file_.get(), request.buffers[0].iov_base, request.length,
                  static_cast<off_t>(request.offset)) == static_cast<ssize_t>(request.length));
    request.Complete(absl::OkStatus());
  }
  [[nodiscard]] uint64_t size() const override { return kTiB; }
  Task<absl::Status> Resize(uint64_t) override { co_return absl::UnimplementedError(""); }
  absl::Status Refresh() override { return absl::OkStatus(); }
  [[nodiscard]] const std::string& path() const override { return path_; }
  [[nodiscard]] bool read_only() const override { return true; }
  [[nodiscard]] uint32_t logical_block_bytes() const override { return 512; }
  [[nodiscard]] uint32_t physical_block_bytes() const override { return 4096; }
  [[nodiscard]] int fd() const override { return file_.get(); }

  uint64_t bytes_read = 0;

 private:
  const UniqueFd file_;
  const std::string path_ = "image";
};

template <typename Target>
absl::StatusOr<bool> Ask(Target& target, uint64_t begin, SurveyOptions options = {}) {
  std::optional<absl::StatusOr<bool>> zero;
  Start(ReadsAsZero(target, begin, std::move(options)),
        [&](absl::StatusOr<bool> result) { zero = std::move(result); });
  return *zero;
}
template <typename Target>
bool IsZero(Target& target, uint64_t begin, SurveyOptions options = {}) {
  const absl::StatusOr<bool> zero = Ask(target, begin, std::move(options));
  CHECK_OK(zero.status());
  return *zero;
}

TEST(DataSurveyTest, HolesOfAFileAreNotRead) {
  HoleyFile file;
  file.Fill(kTiB / 2, 0);
  uint64_t last_done = 0;
  SurveyOptions options;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, kTiB - 512);
    EXPECT_GT(done, last_done);
    last_done = done;
  };
  EXPECT_TRUE(IsZero(file, 512, options));
  EXPECT_EQ(last_done, kTiB - 512);
  EXPECT_GE(file.bytes_read, 4096U);
  EXPECT_LE(file.bytes_read, 4U << 20);  // a file system may have large pages
  file.Fill(kTiB - 4096, 1);
  EXPECT_FALSE(IsZero(file, 512));
  EXPECT_FALSE(IsZero(file, kTiB - 1));
  EXPECT_TRUE(IsZero(file, kTiB));
}

TEST(DataSurveyTest, UnallocatedBlocksOfADiskAreNotRead) {
  HoleyFile file;
  FakeDisk disk({.geometry = {.size_bytes = 3 * kTiB}, .immediate = true});
  disk.storage().on_request = [&](const Request& request) {
    EXPECT_EQ(request.offset / kTiB, 2U);
    return absl::OkStatus();
  };
  // Unallocated, a hole of a file, and a last part of which nothing is known.
  disk.map_extent = [&](uint64_t offset) {
    if (offset < kTiB) return Extent{.kind = Extent::Kind::kZero, .length = kTiB - offset};
    if (offset < 2 * kTiB) {
      return Extent{.kind = Extent::Kind::kFile,
                    .length = 2 * kTiB - offset,
                    .fd = file.fd(),
                    .file_offset = offset - kTiB};
    }
    if (offset < 3 * kTiB - 4096) {
      return Extent{.kind = Extent::Kind::kZero, .length = 3 * kTiB - 4096 - offset};
    }
    return Extent{.kind = Extent::Kind::kOpaque, .length = 3 * kTiB - offset};
  };
  EXPECT_TRUE(IsZero(disk, 4096));
  disk.storage().Poke(3 * kTiB - 512, std::vector<uint8_t>(512, 1));
  EXPECT_FALSE(IsZero(disk, 4096));
}

TEST(DataSurveyTest, CanBeStopped) {
  HoleyFile file;
  for (uint64_t at = 0; at < 8; ++at) file.Fill(at << 20, 0);
  std::stop_source stop;
  SurveyOptions options = {.progress = [&](uint64_t, uint64_t) { stop.request_stop(); },
                           .stop = stop.get_token()};
  EXPECT_TRUE(absl::IsCancelled(Ask(file, 0, options).status()));
}

}  // namespace
}  // namespace bothy::disk
