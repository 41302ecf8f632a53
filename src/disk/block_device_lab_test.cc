// HostStorage and RawDisk over block devices, which only root has, and which there are in the lab.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "disk/host_storage.h"
#include "disk/raw/raw_disk.h"
#include "disk/testing/block_devices.h"
#include "support/testing/test_folder.h"
#include "support/unique_fd.h"

namespace bothy::disk {
namespace {

using ::testing::HasSubstr;
using ::testing::TestWithParam;

constexpr uint64_t kDeviceBytes = uint64_t{8} << 20;

template <typename T>
T RunTask(IoLoop& loop, Task<T> task) {
  std::optional<T> result;
  Start(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
  loop.RunUntil([&result] { return result.has_value(); });
  return *std::move(result);
}

class BlockDeviceLabTest : public TestWithParam<IoLoop::Engine> {
 protected:
  BlockDeviceLabTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }
  // A device over a new file; the file is file_.
  std::unique_ptr<LoopDevice> Device(uint32_t sector_bytes = 512) {
    file_ = folder_ / "file";
    const UniqueFd file(::open(file_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(file.get(), kDeviceBytes), 0);
    auto device = LoopDevice::Create({.file = file_, .sector_bytes = sector_bytes});
    EXPECT_TRUE(device.ok()) << device.status();
    return *std::move(device);
  }
  absl::StatusOr<std::unique_ptr<Storage>> Open(const std::string& path, bool read_only = false) {
    return RunTask(*loop_, OpenHostStorage(*loop_, {.path = path, .read_only = read_only}));
  }
  std::vector<uint8_t> Read(Storage& storage, uint64_t offset, size_t bytes) {
    std::vector<uint8_t> contents(bytes);
    const absl::Status status = RunTask(*loop_, ReadAt(storage, offset, contents));
    EXPECT_TRUE(status.ok()) << status;
    return contents;
  }

  TestFolder folder_;
  std::string file_;
  std::unique_ptr<IoLoop> loop_;
};

TEST_P(BlockDeviceLabTest, IsAsLongAsTheDeviceWithItsSectors) {
  for (const uint32_t sector : {512U, 4096U}) {
    const auto device = Device(sector);
    auto storage = Open(device->path());
    ASSERT_TRUE(storage.ok()) << storage.status();
    EXPECT_EQ((*storage)->size(), kDeviceBytes);
    EXPECT_EQ((*storage)->logical_block_bytes(), sector);
    auto disk = OpenRawDisk(*std::move(storage));
    ASSERT_TRUE(disk.ok()) << disk.status();
    EXPECT_EQ((*disk)->geometry().logical_sector_bytes, sector);
    EXPECT_TRUE(RunTask(*loop_, (*disk)->Close()).ok());
  }
}

TEST_P(BlockDeviceLabTest, WhatIsWrittenAndFlushedIsOnTheDevice) {
  const auto device = Device();
  auto storage = Open(device->path());
  ASSERT_TRUE(storage.ok()) << storage.status();
  std::vector<uint8_t> bytes(100'000);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  // Buffered: at any offset.
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 12'345, bytes)).ok());
  ASSERT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
  EXPECT_EQ(Read(**storage, 12'345, bytes.size()), bytes);
  const UniqueFd file(::open(file_.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<uint8_t> written(bytes.size());
  ASSERT_EQ(::pread(file.get(), written.data(), written.size(), 12'345),
            static_cast<ssize_t>(written.size()));
  EXPECT_EQ(written, bytes);
}

// Aligned to sectors or not, with blocks given back or kept.
TEST_P(BlockDeviceLabTest, ZeroesAreWritten) {
  for (const uint32_t sector : {512U, 4096U}) {
    SCOPED_TRACE(sector);
    const auto device = Device(sector);
    auto storage = Open(device->path());
    ASSERT_TRUE(storage.ok()) << storage.status();
    for (const bool may_deallocate : {false, true}) {
      for (const auto& [offset, length] : {std::pair{uint64_t{1} << 20, uint64_t{1} << 20},
                                           {4096 + 512, 70'000},
                                           {0, 1},
                                           {kDeviceBytes - 4096, 4096}}) {
        SCOPED_TRACE(offset);
        std::vector<uint8_t> ones(kDeviceBytes, 1);
        ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 0, ones)).ok());
        const auto zero = [](Storage& at, uint64_t from, uint64_t count,
                             bool deallocate) -> Task<absl::Status> {
          co_return co_await SubmitAwaiter<Storage>(at, Operation::kWriteZeroes, from, count, {},
                                                    deallocate);
        };
        ASSERT_TRUE(RunTask(*loop_, zero(**storage, offset, length, may_deallocate)).ok());
        ASSERT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
        std::fill_n(ones.begin() + static_cast<ptrdiff_t>(offset), length, uint8_t{0});
        EXPECT_TRUE(Read(**storage, 0, kDeviceBytes) == ones);
      }
    }
  }
}

TEST_P(BlockDeviceLabTest, DiscardGivesBlocksBack) {
  const auto device = Device();
  auto storage = Open(device->path());
  ASSERT_TRUE(storage.ok()) << storage.status();
  const std::vector<uint8_t> ones(kDeviceBytes, 1);
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 0, ones)).ok());
  ASSERT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
  ASSERT_TRUE(RunTask(*loop_, Discard(**storage, 1 << 20, 4 << 20)).ok());
  struct stat status {};
  ASSERT_EQ(::stat(file_.c_str(), &status), 0);
  EXPECT_LE(status.st_blocks * 512, static_cast<int64_t>(kDeviceBytes) - (4 << 20));
  EXPECT_EQ(Read(**storage, 0, 1 << 20), std::vector<uint8_t>(1 << 20, 1));
  // Less than a sector: kept.
  ASSERT_TRUE(RunTask(*loop_, Discard(**storage, 100, 100)).ok());
  EXPECT_EQ(Read(**storage, 0, 1 << 20), std::vector<uint8_t>(1 << 20, 1));
}

TEST_P(BlockDeviceLabTest, EndsWhereTheDeviceEnds) {
  const auto device = Device();
  auto storage = Open(device->path());
  ASSERT_TRUE(storage.ok()) << storage.status();
  std::vector<uint8_t> bytes(4096);
  EXPECT_TRUE(absl::IsOutOfRange(RunTask(*loop_, ReadAt(**storage, kDeviceBytes - 4095, bytes))));
  const absl::Status written = RunTask(*loop_, WriteAt(**storage, kDeviceBytes, bytes));
  EXPECT_FALSE(written.ok());
  EXPECT_THAT(std::string(written.message()), HasSubstr(device->path()));
  EXPECT_EQ((*storage)->size(), kDeviceBytes);
  const absl::Status resized = RunTask(*loop_, (*storage)->Resize(2 * kDeviceBytes));
  EXPECT_TRUE(absl::IsUnimplemented(resized)) << resized;
}

TEST_P(BlockDeviceLabTest, GrowsWithTheDevice) {
  const auto device = Device();
  auto storage = Open(device->path());
  ASSERT_TRUE(storage.ok()) << storage.status();
  ASSERT_EQ(::truncate(file_.c_str(), 2 * kDeviceBytes), 0);
  const absl::Status grown = device->Resize();
  ASSERT_TRUE(grown.ok()) << grown;
  ASSERT_TRUE((*storage)->Refresh().ok());
  EXPECT_EQ((*storage)->size(), 2 * kDeviceBytes);
}

TEST_P(BlockDeviceLabTest, AWriterExcludesOthersAndMounts) {
  const auto device = Device();
  {
    auto writer = Open(device->path());
    ASSERT_TRUE(writer.ok()) << writer.status();
    const absl::Status second = Open(device->path()).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(second)) << second;
    EXPECT_TRUE(absl::IsFailedPrecondition(Open(device->path(), true).status()));
    EXPECT_NE(::mount(device->path().c_str(), folder_.path().c_str(), "ext4", 0, nullptr), 0);
    EXPECT_EQ(errno, EBUSY);
  }
  auto reader = Open(device->path(), true);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(Open(device->path(), true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Open(device->path()).status()));
}

TEST_P(BlockDeviceLabTest, ADeviceThatIsReadOnlyCantBeWritten) {
  Device().reset();  // for its file
  auto device = LoopDevice::Create({.file = file_, .read_only = true});
  ASSERT_TRUE(device.ok()) << device.status();
  const absl::Status writable = Open((*device)->path()).status();
  EXPECT_TRUE(absl::IsPermissionDenied(writable)) << writable;
  auto storage = Open((*device)->path(), true);
  ASSERT_TRUE(storage.ok()) << storage.status();
  EXPECT_EQ(Read(**storage, 0, 512), std::vector<uint8_t>(512));
}

TEST_P(BlockDeviceLabTest, AMediumsErrorIsOneOfItsSectors) {
  const auto device = Device();
  auto faulty = FaultyDevice::Create({.name = "bothy-block-test",
                                      .device = device->path(),
                                      .bytes = kDeviceBytes,
                                      .bad_offset = 1 << 20,
                                      .bad_bytes = 4096});
  ASSERT_TRUE(faulty.ok()) << faulty.status();
  auto storage = Open((*faulty)->path());
  ASSERT_TRUE(storage.ok()) << storage.status();
  std::vector<uint8_t> bytes(4096);
  const absl::Status read = RunTask(*loop_, ReadAt(**storage, 1 << 20, bytes));
  EXPECT_FALSE(read.ok());
  EXPECT_THAT(std::string(read.message()), HasSubstr("offset 1048576: read"));
  EXPECT_EQ(Read(**storage, (1 << 20) - 4096, 4096), std::vector<uint8_t>(4096));
  // Told when it is flushed: it is the host's cache that writes it.
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 1 << 20, bytes)).ok());
  EXPECT_FALSE(RunTask(*loop_, Flush(**storage)).ok());
}

INSTANTIATE_TEST_SUITE_P(Engines, BlockDeviceLabTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

}  // namespace
}  // namespace bothy::disk
