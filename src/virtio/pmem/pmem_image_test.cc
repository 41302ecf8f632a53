// Windows over images of every format: what is mapped, what isn't, what happens to the file behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "disk/host_storage.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"
#include "virtio/pmem/testing/window_fixture.h"

namespace bothy::virtio {
namespace {

using disk::ImageType;
using ::testing::HasSubstr;

constexpr uint64_t kPage = kPmemPageBytes;
constexpr uint64_t kMiB = uint64_t{1} << 20;

class PmemImageTest : public testing::WindowTest {
 protected:
  // A raw file whose 8-byte words hold their offsets.
  std::string RawFile(uint64_t bytes) {
    std::vector<uint8_t> contents(bytes);
    for (uint64_t at = 0; at + 8 <= bytes; at += 8) std::memcpy(&contents[at], &at, sizeof at);
    return folder_.Write("disk.img", contents);
  }
  std::string SparseFile(uint64_t bytes) {
    std::string path = folder_ / "sparse.img";
    const UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR, 0600));
    CHECK(fd.valid() && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
    return path;
  }
  template <typename CreateImage>
  std::string MakeImage(const std::string& name, CreateImage create) {
    std::string path = folder_ / name;
    CHECK_OK(OnLoop([&]() -> Task<absl::Status> {
      auto storage = co_await disk::CreateHostStorage(loop(), path);
      CO_RETURN_IF_ERROR(storage.status());
      absl::Status status = co_await create(**storage);
      co_return status;
    }));
    return path;
  }
  std::string MakeVhdx(const std::string& name, const disk::vhdx::CreateOptions& options) {
    return MakeImage(name, [&](disk::Storage& s) { return disk::vhdx::Create(s, options); });
  }
  std::string MakeVhd1(const std::string& name, const disk::vhd1::CreateOptions& options) {
    return MakeImage(name, [&](disk::Storage& s) { return disk::vhd1::Create(s, options); });
  }
  void OpenWindow(const std::string& path, ImageType type, bool read_only = false,
                  PmemWindowOptions options = {}) {
    auto disk = OpenImage(path, type, read_only);
    ASSERT_TRUE(disk.ok()) << disk.status();
    const absl::Status status = Open(*std::move(disk), std::move(options));
    ASSERT_TRUE(status.ok()) << status;
  }
  // One word of the disk, read through the format.
  uint64_t OnDisk(const std::string& path, ImageType type, uint64_t offset) {
    auto disk = OpenImage(path, type, true);
    CHECK_OK(disk.status());
    std::vector<uint8_t> page(kPage);
    CHECK_OK(OnLoop([&]() -> Task<absl::Status> {
      absl::Status status = co_await disk::ReadAt(**disk, offset / kPage * kPage, page);
      CO_RETURN_IF_ERROR(status);
      status = co_await (*disk)->Close();
      co_return status;
    }));
    uint64_t value = 0;
    std::memcpy(&value, &page[offset % kPage], sizeof value);
    return value;
  }
  // Random stores and flushes against a model, then the image against it.
  void RandomStores(const std::string& path, ImageType type, uint64_t seed) {
    std::mt19937_64 random(seed);
    const uint64_t words = window_->disk_bytes() / 8;
    std::map<uint64_t, uint64_t> model;
    for (int flush = 0; flush < 6; ++flush) {
      const uint64_t region = random() % words;
      for (int i = 0; i < 300; ++i) {
        // Half of them close together, so that chunks fill up and are mapped.
        const uint64_t word = i % 2 == 0 ? random() % words : (region + random() % 65536) % words;
        model[word] = random() | 1;
        Store(8 * word, model[word]);
      }
      ASSERT_TRUE(Flush().ok());
    }
    for (const auto& [word, value] : model) ASSERT_EQ(Load(8 * word), value) << word;
    const absl::Status status = Close();
    ASSERT_TRUE(status.ok()) << status;
    auto disk = OpenImage(path, type, true);
    ASSERT_TRUE(disk.ok()) << disk.status();
    std::vector<uint8_t> image(window_bytes_);
    ASSERT_TRUE(OnLoop([&]() -> Task<absl::Status> {
                  absl::Status read = co_await disk::ReadAt(**disk, 0, image);
                  CO_RETURN_IF_ERROR(read);
                  read = co_await (*disk)->Close();
                  co_return read;
                }).ok());
    for (uint64_t word = 0; word < words; ++word) {
      uint64_t value = 0;
      std::memcpy(&value, &image[8 * word], sizeof value);
      const auto expected = model.find(word);
      ASSERT_EQ(value, expected == model.end() ? 0 : expected->second) << "word " << word;
    }
  }
  uint64_t window_bytes_ = 0;
};

TEST_F(PmemImageTest, FlatFileIsMappedWhole) {
  const std::string path = RawFile(4 * kMiB);
  OpenWindow(path, ImageType::kRaw);
  const PmemWindow::State state = window_->state();
  EXPECT_EQ(state.mapped_bytes, 4 * kMiB);
  EXPECT_EQ(state.mappings, 1U);
  EXPECT_EQ(state.demand_bytes, 0U);
  EXPECT_EQ(Load(0x123450), 0x123450U);
  Store(0x123450, 5);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(window_->state().flushes, 1U);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnDisk(path, ImageType::kRaw, 0x123450), 5U);
}

TEST_F(PmemImageTest, ReadOnlyFlatFileIsMappedReadOnly) {
  const std::string path = RawFile(2 * kMiB);
  OpenWindow(path, ImageType::kRaw, true);
  EXPECT_TRUE(window_->read_only());
  EXPECT_EQ(window_->state().mapped_bytes, 2 * kMiB);
  EXPECT_EQ(Load(0x1000), 0x1000U);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  ASSERT_EQ(::write(writer.get(), "12345678", 8), 8);
  EXPECT_EQ(::read(reader.get(), At(0x1000), 8), -1);
  EXPECT_TRUE(Close().ok());
}

TEST_F(PmemImageTest, HolesAreNotMappedUntilTheyHaveRoom) {
  SKIP_WITHOUT_USERFAULTFD();
  const std::string path = SparseFile(64 * kMiB);
  OpenWindow(path, ImageType::kRaw);
  EXPECT_EQ(window_->state().mapped_bytes, 0U);
  EXPECT_EQ(Load(kMiB), 0U);
  for (uint64_t at = 8 * kMiB; at < 10 * kMiB; at += kPage) Store(at, at);
  EXPECT_EQ(window_->state().populated_bytes, 2 * kMiB + kPmemChunkBytes);
  ASSERT_TRUE(Flush().ok());
  ASSERT_TRUE(Flush().ok());  // after what the first one left to be done
  // Now the file has room there: mapped, and no memory of our own.
  EXPECT_EQ(window_->state().mapped_bytes, 2 * kMiB);
  EXPECT_EQ(window_->state().populated_bytes, kPmemChunkBytes);
  for (uint64_t at = 8 * kMiB; at < 10 * kMiB; at += kPage) EXPECT_EQ(Load(at), at);
  Store(9 * kMiB, 1);
  EXPECT_EQ(window_->state().dirty_bytes, 0U);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnDisk(path, ImageType::kRaw, 9 * kMiB), 1U);
  EXPECT_EQ(OnDisk(path, ImageType::kRaw, 9 * kMiB + kPage), 9 * kMiB + kPage);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, static_cast<int64_t>(4 * kMiB));  // reading took no room
}

TEST_F(PmemImageTest, MappingsAreBounded) {
  SKIP_WITHOUT_USERFAULTFD();
  const std::string path = SparseFile(16 * kMiB);
  {
    const UniqueFd fd(::open(path.c_str(), O_RDWR));
    const std::vector<uint8_t> data(kPmemChunkBytes, 3);
    for (uint64_t at = 0; at < 16 * kMiB; at += kMiB) {
      ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(at)),
                static_cast<ssize_t>(data.size()));
    }
  }
  PmemWindowOptions options;
  options.max_mappings = 4;
  OpenWindow(path, ImageType::kRaw, false, options);
  EXPECT_EQ(window_->state().mappings, 4U);
  for (uint64_t at = 0; at < 16 * kMiB; at += kMiB) {
    EXPECT_EQ(Load(at), 0x0303030303030303U);
    Store(at, at);
  }
  EXPECT_EQ(window_->state().mappings, 4U);
  ASSERT_TRUE(Close().ok());
  for (uint64_t at = 0; at < 16 * kMiB; at += kMiB) {
    EXPECT_EQ(OnDisk(path, ImageType::kRaw, at), at);
  }
}

struct Format {
  const char* name;
  ImageType type;
  uint32_t block_bytes;
  uint32_t sector_bytes;
  bool fixed;
};
class PmemFormatTest : public PmemImageTest, public ::testing::WithParamInterface<Format> {};

TEST_P(PmemFormatTest, RandomStoresAreInTheImage) {
  SKIP_WITHOUT_USERFAULTFD();
  const Format& format = GetParam();
  // No whole number of blocks nor of sections.
  window_bytes_ = 11 * kMiB + 5 * kPage;
  std::string path;
  switch (format.type) {
    case ImageType::kRaw:
      path = SparseFile(window_bytes_);
      break;
    case ImageType::kVhdx: {
      disk::vhdx::CreateOptions options;
      options.size_bytes = window_bytes_;
      options.block_size_bytes = format.block_bytes;
      options.logical_sector_bytes = format.sector_bytes;
      options.type = format.fixed ? disk::vhdx::Type::kFixed : disk::vhdx::Type::kDynamic;
      path = MakeVhdx("disk.vhdx", options);
      break;
    }
    case ImageType::kVhd1: {
      disk::vhd1::CreateOptions options;
      options.size_bytes = window_bytes_;
      options.block_size_bytes = format.block_bytes;
      options.type = format.fixed ? disk::vhd1::Type::kFixed : disk::vhd1::Type::kDynamic;
      path = MakeVhd1("disk.vhd", options);
      break;
    }
  }
  OpenWindow(path, format.type);
  RandomStores(path, format.type, 1);
}

INSTANTIATE_TEST_SUITE_P(
    All, PmemFormatTest,
    ::testing::Values(Format{"raw", ImageType::kRaw, 0, 512, true},
                      Format{"vhdx_fixed", ImageType::kVhdx, 1 << 20, 512, true},
                      Format{"vhdx_dynamic", ImageType::kVhdx, 1 << 20, 512, false},
                      Format{"vhdx_dynamic_4k", ImageType::kVhdx, 32 << 20, 4096, false},
                      Format{"vhd1_fixed", ImageType::kVhd1, 0, 512, true},
                      Format{"vhd1_dynamic", ImageType::kVhd1, 2 << 20, 512, false},
                      Format{"vhd1_dynamic_small", ImageType::kVhd1, 512 << 10, 512, false}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST_F(PmemImageTest, ChildOfAParentLeavesItAlone) {
  SKIP_WITHOUT_USERFAULTFD();
  disk::vhdx::CreateOptions options;
  options.size_bytes = 8 * kMiB;
  options.block_size_bytes = 1 << 20;
  const std::string parent = MakeVhdx("parent.vhdx", options);
  OpenWindow(parent, ImageType::kVhdx);
  for (uint64_t at = 0; at < 8 * kMiB; at += kPage) Store(at, at + 1);
  ASSERT_TRUE(Close().ok());

  auto opened = OpenImage(parent, ImageType::kVhdx, true);
  ASSERT_TRUE(opened.ok());
  options.type = disk::vhdx::Type::kDifferencing;
  options.disk_id = *(*opened)->identity();
  options.parent.relative_path = "parent.vhdx";
  options.parent.linkage = *(*opened)->linkage();
  ASSERT_TRUE(OnLoop([&] { return (*opened)->Close(); }).ok());
  opened->reset();
  const std::string child = MakeVhdx("child.vhdx", options);

  OpenWindow(child, ImageType::kVhdx);
  EXPECT_EQ(Load(3 * kMiB), 3 * kMiB + 1);
  EXPECT_EQ(window_->state().mapped_bytes, 0U);  // a parent's blocks can't be stored to
  Store(3 * kMiB, 9);
  Store(5 * kMiB + 8, 10);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnDisk(child, ImageType::kVhdx, 3 * kMiB), 9U);
  EXPECT_EQ(OnDisk(child, ImageType::kVhdx, 3 * kMiB + kPage), 3 * kMiB + kPage + 1);
  EXPECT_EQ(OnDisk(child, ImageType::kVhdx, 5 * kMiB), 5 * kMiB + 1);
  EXPECT_EQ(OnDisk(child, ImageType::kVhdx, 5 * kMiB + 8), 10U);
  EXPECT_EQ(OnDisk(parent, ImageType::kVhdx, 3 * kMiB), 3 * kMiB + 1);

  // Read-only, a child's window shows its parent's file as it is.
  OpenWindow(child, ImageType::kVhdx, true);
  EXPECT_GT(window_->state().mapped_bytes, 0U);
  EXPECT_EQ(Load(7 * kMiB), 7 * kMiB + 1);
  ASSERT_TRUE(Close().ok());
}

TEST_F(PmemImageTest, TruncatedFileFailsFlushesAndTheProcessGoesOn) {
  SKIP_WITHOUT_USERFAULTFD();
  const std::string path = RawFile(4 * kMiB);
  PmemWindowOptions options;
  options.watch_files = false;
  OpenWindow(path, ImageType::kRaw, false, options);
  Store(0, 1);
  ASSERT_TRUE(Flush().ok());
  ASSERT_EQ(::truncate(path.c_str(), kMiB), 0);
  // Noticed by a flush, before anybody touches what isn't there.
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_THAT(window_->state().last_error, HasSubstr("truncated"));
  // A thread of ours that touches it goes on.
  EXPECT_EQ(Load(2 * kMiB), 0U);
  // The kernel, for KVM or a system call, can't; then the window is put right.
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  EXPECT_EQ(::write(writer.get(), At(3 * kMiB), 8), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_TRUE(window_->OnFault(PmemWindow::Suspects::kTruncated));
  EXPECT_EQ(::write(writer.get(), At(3 * kMiB), 8), 8);
  EXPECT_FALSE(window_->OnFault(PmemWindow::Suspects::kTruncated));
  EXPECT_EQ(Load(8), 8U);  // what there is is still there
  EXPECT_FALSE(Flush().ok());
  EXPECT_THAT(window_->state().failure, HasSubstr("truncated to 1048576 bytes"));
  EXPECT_FALSE(Close().ok());
  EXPECT_EQ(std::filesystem::file_size(path), kMiB);
}

TEST_F(PmemImageTest, TruncationIsHeardOf) {
  SKIP_WITHOUT_USERFAULTFD();
  const std::string path = RawFile(4 * kMiB);
  OpenWindow(path, ImageType::kRaw);
  Store(0, 1);
  ASSERT_EQ(::truncate(path.c_str(), kMiB), 0);
  while (window_->state().mapped_bytes != 0) loop().PostAndWait([] {});
  // The kernel, for KVM, finds pages everywhere.
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd reader(pipe[0]);
  const UniqueFd writer(pipe[1]);
  EXPECT_EQ(::write(writer.get(), At(3 * kMiB), 8), 8);
  EXPECT_EQ(Load(0), 1U);
  EXPECT_FALSE(Flush().ok());
  EXPECT_FALSE(Close().ok());
}

TEST_F(PmemImageTest, PagesThatCouldNotBeAccessedAreOnDemandAfterwards) {
  SKIP_WITHOUT_USERFAULTFD();
  // A fault for which nothing is to blame that could be found: a full file system, say.
  const std::string path = RawFile(4 * kMiB);
  OpenWindow(path, ImageType::kRaw);
  Store(kMiB, 1);
  EXPECT_FALSE(window_->OnFault(PmemWindow::Suspects::kTruncated));
  EXPECT_TRUE(window_->OnFault(PmemWindow::Suspects::kAll));
  EXPECT_FALSE(window_->OnFault(PmemWindow::Suspects::kAll));  // nothing is mapped any more
  EXPECT_EQ(window_->state().mapped_bytes, 0U);
  EXPECT_EQ(Load(kMiB), 1U);  // not even flushed
  EXPECT_EQ(Load(kMiB + 8), kMiB + 8);
  Store(kMiB + 16, 2);
  EXPECT_EQ(window_->state().dirty_bytes, kPage);
  EXPECT_TRUE(Flush().ok());
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(window_->state().mapped_bytes, 0U);
  ASSERT_TRUE(Close().ok());
  EXPECT_EQ(OnDisk(path, ImageType::kRaw, kMiB), 1U);
  EXPECT_EQ(OnDisk(path, ImageType::kRaw, kMiB + 16), 2U);
}

TEST_F(PmemImageTest, WhatWasMappedOfATruncatedFileIsMissedByEveryFlush) {
  SKIP_WITHOUT_USERFAULTFD();
  const std::string path = RawFile(4 * kMiB);
  PmemWindowOptions options;
  options.watch_files = false;
  OpenWindow(path, ImageType::kRaw, false, options);
  ASSERT_TRUE(window_->OnFault(PmemWindow::Suspects::kAll));
  EXPECT_TRUE(Flush().ok());
  ASSERT_EQ(::truncate(path.c_str(), 4 * kMiB - kPage), 0);
  // Nobody has touched what isn't there.
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_TRUE(absl::IsDataLoss(Flush()));
  EXPECT_FALSE(Close().ok());
}

TEST_F(PmemImageTest, DeletedFileFailsFlushes) {
  const std::string path = RawFile(2 * kMiB);
  OpenWindow(path, ImageType::kRaw);
  Store(0, 1);
  ASSERT_TRUE(Flush().ok());
  std::filesystem::remove(path);
  Store(0, 2);
  EXPECT_TRUE(absl::IsUnavailable(Flush()));
  EXPECT_THAT(window_->state().last_error, HasSubstr("deleted"));
  EXPECT_EQ(window_->state().failure, "");
  EXPECT_EQ(Load(0), 2U);
  EXPECT_FALSE(Close().ok());
}

TEST_F(PmemImageTest, ThreadsAndFlushesOnADynamicImage) {
  SKIP_WITHOUT_USERFAULTFD();
  disk::vhdx::CreateOptions options;
  options.size_bytes = 32 * kMiB;
  options.block_size_bytes = 1 << 20;
  const std::string path = MakeVhdx("disk.vhdx", options);
  OpenWindow(path, ImageType::kVhdx);
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kWords = 32 * kMiB / 8;
  std::vector<std::map<uint64_t, uint64_t>> models(kThreads);
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(thread);
      for (int round = 0; round < 15; ++round) {
        // Runs of pages, so that chunks are written whole and mapped while others store to them.
        const uint64_t start = random() % (kWords - 40000);
        for (uint64_t word = start - start % kThreads + thread; word < start + 40000;
             word += 16 * kThreads) {
          models[thread][word] = random();
          Store(8 * word, models[thread][word]);
        }
        EXPECT_TRUE(Flush().ok());
        for (const auto& [word, value] : models[thread]) ASSERT_EQ(Load(8 * word), value);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(Close().ok());
  OpenWindow(path, ImageType::kVhdx, true);
  for (const auto& model : models) {
    for (const auto& [word, value] : model) ASSERT_EQ(Load(8 * word), value) << word;
  }
  ASSERT_TRUE(Close().ok());
}

}  // namespace
}  // namespace bothy::virtio
