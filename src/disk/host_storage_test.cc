#include "disk/host_storage.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <numeric>
#include <random>

#include "disk/raw/raw_disk.h"
#include "support/testing/test_folder.h"

namespace bothy::disk {
namespace {

using ::testing::HasSubstr;

template <typename T>
T RunTask(IoLoop& loop, Task<T> task) {
  std::optional<T> result;
  Start(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
  loop.RunUntil([&result] { return result.has_value(); });
  return *std::move(result);
}

class HostStorageTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  HostStorageTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }
  std::string File(const std::string& name, size_t bytes) {
    std::string path = folder_.path() + "/" + name;
    std::ofstream file(path);
    std::string contents(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) contents[i] = static_cast<char>(i * 7 + i / 256);
    file << contents;
    return path;
  }
  absl::StatusOr<std::unique_ptr<Storage>> Open(const std::string& path, bool read_only = false) {
    HostStorageOptions options;
    options.path = path;
    options.read_only = read_only;
    return RunTask(*loop_, OpenHostStorage(*loop_, options));
  }

  TestFolder folder_;
  std::unique_ptr<IoLoop> loop_;
};

TEST_P(HostStorageTest, ReadsAndWritesAtAnyOffset) {
  const std::string path = File("a", 10'000);
  auto storage = Open(path);
  ASSERT_TRUE(storage.ok()) << storage.status();
  EXPECT_EQ((*storage)->size(), 10'000U);
  std::vector<uint8_t> bytes(3000);
  ASSERT_TRUE(RunTask(*loop_, ReadAt(**storage, 7000, bytes)).ok());
  EXPECT_EQ(bytes[5], static_cast<uint8_t>(7005 * 7 + 7005 / 256));
  std::fill(bytes.begin(), bytes.end(), 9);
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 9999, bytes)).ok());
  EXPECT_EQ((*storage)->size(), 12'999U);
  ASSERT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
  EXPECT_EQ(std::filesystem::file_size(path), 12'999U);
}

TEST_P(HostStorageTest, TakesMoreBuffersThanOneCallDoes) {
  auto storage = Open(File("a", 1 << 20));
  ASSERT_TRUE(storage.ok());
  std::vector<uint8_t> bytes(size_t{5000} * 3);
  std::vector<iovec> buffers;
  for (size_t i = 0; i < 5000; ++i) buffers.push_back({&bytes[3 * i], 3});
  const auto run = [](Storage& s, std::span<const iovec> b) -> Task<absl::Status> {
    co_return co_await SubmitAwaiter<Storage>(s, Operation::kRead, 11, 15'000, b);
  };
  ASSERT_TRUE(RunTask(*loop_, run(**storage, buffers)).ok());
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], static_cast<uint8_t>((i + 11) * 7 + (i + 11) / 256)) << i;
  }
}

TEST_P(HostStorageTest, ReadingPastTheEndIsAnErrorAlsoWhenTheFileWasCutOff) {
  const std::string path = File("a", 8192);
  auto storage = Open(path);
  ASSERT_TRUE(storage.ok());
  std::vector<uint8_t> bytes(4096);
  EXPECT_TRUE(absl::IsOutOfRange(RunTask(*loop_, ReadAt(**storage, 4097, bytes))));
  ASSERT_EQ(::truncate(path.c_str(), 6000), 0);
  const absl::Status cut = RunTask(*loop_, ReadAt(**storage, 4096, bytes));
  EXPECT_TRUE(absl::IsOutOfRange(cut));
  EXPECT_THAT(std::string(cut.message()), HasSubstr("offset 6000"));
}

TEST_P(HostStorageTest, FlushingAFileThatWasCutIsAnError) {
  const std::string path = File("a", 8192);
  auto storage = Open(path);
  ASSERT_TRUE(storage.ok());
  const std::vector<uint8_t> bytes(512, 7);
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 8192, bytes)).ok());  // it grows
  EXPECT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
  ASSERT_TRUE(RunTask(*loop_, (*storage)->Resize(6000)).ok());
  EXPECT_TRUE(RunTask(*loop_, Flush(**storage)).ok()) << "its own doing";
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  ASSERT_TRUE(RunTask(*loop_, WriteAt(**storage, 0, bytes)).ok());
  const absl::Status flushed = RunTask(*loop_, Flush(**storage));
  EXPECT_TRUE(absl::IsDataLoss(flushed)) << flushed;
  EXPECT_THAT(std::string(flushed.message()), HasSubstr("truncated to 4096 bytes"));
}

TEST_P(HostStorageTest, FlushingAFileThatWasDeletedIsAnError) {
  const std::string path = File("a", 8192);
  auto storage = Open(path);
  ASSERT_TRUE(storage.ok());
  EXPECT_TRUE(RunTask(*loop_, Flush(**storage)).ok());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  const absl::Status flushed = RunTask(*loop_, Flush(**storage));
  EXPECT_TRUE(absl::IsUnavailable(flushed));
  EXPECT_THAT(std::string(flushed.message()), HasSubstr("deleted"));
  // What it held can still be read.
  std::vector<uint8_t> bytes(512);
  EXPECT_TRUE(RunTask(*loop_, ReadAt(**storage, 0, bytes)).ok());
}

TEST_P(HostStorageTest, ZeroesAndPunchesHoles) {
  const std::string path = File("a", 1 << 20);
  auto storage = Open(path);
  ASSERT_TRUE(storage.ok());
  ASSERT_TRUE(RunTask(*loop_, WriteZeroes(**storage, 1000, 200'000)).ok());
  ASSERT_TRUE(RunTask(*loop_, Discard(**storage, 524'288, 262'144)).ok());
  std::vector<uint8_t> bytes(1 << 20);
  ASSERT_TRUE(RunTask(*loop_, ReadAt(**storage, 0, bytes)).ok());
  EXPECT_NE(bytes[999], 0);
  EXPECT_EQ(std::accumulate(bytes.begin() + 1000, bytes.begin() + 201'000, 0), 0);
  EXPECT_NE(bytes[201'001], 0);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
  ASSERT_TRUE(RunTask(*loop_, WriteZeroes(**storage, 1 << 20, 4096)).ok());
  EXPECT_EQ((*storage)->size(), (1U << 20) + 4096);
}

TEST_P(HostStorageTest, AWritableImageExcludesOthersReadersShare) {
  const std::string path = File("a", 4096);
  {
    auto writer = Open(path);
    ASSERT_TRUE(writer.ok());
    EXPECT_TRUE(absl::IsFailedPrecondition(Open(path).status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(Open(path, true).status()));
  }
  auto reader = Open(path, true);
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(Open(path, true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Open(path).status()));
  std::vector<uint8_t> bytes(1);
  EXPECT_TRUE(absl::IsPermissionDenied(RunTask(*loop_, WriteAt(**reader, 0, bytes))));
}

TEST_P(HostStorageTest, SaysWhatIsWrongWithAPath) {
  EXPECT_TRUE(absl::IsNotFound(Open(folder_.path() + "/none").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Open(folder_.path(), true).status()));
  const std::string fifo = folder_.path() + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(Open(fifo).status()));
}

TEST_P(HostStorageTest, AFullHostIsResourceExhausted) {
  auto storage = Open(File("a", 4096));
  ASSERT_TRUE(storage.ok());
  // EFBIG by the limit on the size of files stands for a full host here: both are "no more room".
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 8192;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::vector<uint8_t> bytes(16'384, 1);
  const absl::Status status = RunTask(*loop_, WriteAt(**storage, 0, bytes));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("offset 8192"));
}

TEST_P(HostStorageTest, ManyRequestsInFlightGetEachTheirOwn) {
  auto storage = Open(File("a", 1 << 20));
  ASSERT_TRUE(storage.ok());
  constexpr int kRequests = 10'000;
  std::vector<std::array<uint8_t, 16>> results(kRequests);
  std::mt19937 random(1);
  std::vector<uint64_t> offsets;
  int done = 0;
  for (int i = 0; i < kRequests; ++i) {
    offsets.push_back(random() % ((1 << 20) - 16));
    Start(ReadAt(**storage, offsets[i], results[i]), [&done](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      ++done;
    });
  }
  loop_->RunUntil([&] { return done == kRequests; });
  for (int i = 0; i < kRequests; ++i) {
    for (uint64_t j = 0; j < 16; ++j) {
      const uint64_t at = offsets[i] + j;
      ASSERT_EQ(results[i][j], static_cast<uint8_t>(at * 7 + at / 256));
    }
  }
}

TEST_P(HostStorageTest, ARawDiskIsItsFile) {
  auto storage = Open(File("a", 8192));
  ASSERT_TRUE(storage.ok());
  auto disk = OpenRawDisk(*std::move(storage));
  ASSERT_TRUE(disk.ok());
  std::vector<uint8_t> bytes(512);
  EXPECT_TRUE(RunTask(*loop_, ReadAt(**disk, 512, bytes)).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(RunTask(*loop_, ReadAt(**disk, 511, bytes))));
  EXPECT_TRUE(absl::IsInvalidArgument(RunTask(*loop_, ReadAt(**disk, 8192, bytes))));
  const auto extent = RunTask(*loop_, (*disk)->MapExtent(4096));
  EXPECT_EQ(extent->kind, Extent::Kind::kFile);
  EXPECT_EQ(extent->length, 4096U);
  EXPECT_TRUE(RunTask(*loop_, (*disk)->Close()).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(OpenRawDisk(*Open(File("odd", 1000))).status()));
}

INSTANTIATE_TEST_SUITE_P(Engines, HostStorageTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

}  // namespace
}  // namespace bothy::disk
