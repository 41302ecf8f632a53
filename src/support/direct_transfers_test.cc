#include "support/direct_transfers.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <optional>
#include <vector>

#include "support/testing/test_folder.h"
#include "support/unique_fd.h"

namespace bothy {
namespace {

class Op final : public IoLoop::Operation {
 public:
  void Complete(int64_t value) override { result = value; }
  std::optional<int64_t> result;
};

int64_t now = 0;
int64_t each_look_takes = 0;
int64_t Now() { return now += each_look_takes; }

class DirectTransfersTest : public ::testing::Test {
 protected:
  DirectTransfersTest() {
    now = 1000;
    each_look_takes = 0;
    file_.Reset(::open((folder_.path() + "/file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    // procfs refuses RWF_NOWAIT, as a file does that isn't in the page cache.
    missing_.Reset(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  }
  FileCall Call(FileCall::Kind kind, const UniqueFd& fd) {
    return {.kind = kind, .fd = fd.get(), .buffers = std::span(&buffer_, 1), .op = &op_};
  }
  bool Take(FileCall::Kind kind, const UniqueFd& fd) {
    FileCall call = Call(kind, fd);
    return transfers_.Take(call);
  }
  // Whether a write is made here, and if so makes it, in so many milliseconds.
  bool Write(int64_t milliseconds) {
    if (!Take(FileCall::Kind::kWrite, file_)) return false;
    each_look_takes = milliseconds;
    FileCall left;
    EXPECT_TRUE(transfers_.RunOne(left));
    each_look_takes = 0;
    return true;
  }
  // Reads that aren't tried here before one is.
  int SkippedBefore(const UniqueFd& fd) {
    int skipped = 0;
    while (!Take(FileCall::Kind::kRead, fd)) ++skipped;
    FileCall left;
    EXPECT_EQ(transfers_.RunOne(left), &fd == &file_);
    return skipped;
  }

  TestFolder folder_;
  UniqueFd file_;
  UniqueFd missing_;
  std::array<char, 4> bytes_{'a', 'b', 'c', 'd'};
  const iovec buffer_ = {bytes_.data(), bytes_.size()};
  Op op_;
  DirectTransfers transfers_{&Now};
};

TEST_F(DirectTransfersTest, MakesThemInOrder) {
  ASSERT_TRUE(Take(FileCall::Kind::kWrite, file_));
  ASSERT_TRUE(Take(FileCall::Kind::kRead, file_));
  FileCall left;
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(transfers_.empty());
    EXPECT_TRUE(transfers_.RunOne(left));
    EXPECT_EQ(op_.result, 4);
  }
  EXPECT_TRUE(transfers_.empty());
  EXPECT_FALSE(Take(FileCall::Kind::kDataSync, file_));
  EXPECT_FALSE(Take(FileCall::Kind::kAllocate, file_));
}

TEST_F(DirectTransfersTest, AQueueThatIsNeverEmptyStaysInOrder) {
  constexpr int kCalls = 2000;
  FileCall left;
  std::deque<Op> ops(kCalls + 1);
  const auto take = [&](int i) {
    FileCall call = Call(FileCall::Kind::kWrite, file_);
    call.op = &ops[i];
    ASSERT_TRUE(transfers_.Take(call));
  };
  take(0);
  for (int i = 0; i < kCalls; ++i) {
    take(i + 1);
    ASSERT_TRUE(transfers_.RunOne(left));
    ASSERT_TRUE(ops[i].result.has_value());
    ASSERT_FALSE(ops[i + 1].result.has_value());
  }
  ASSERT_TRUE(transfers_.RunOne(left));
  EXPECT_TRUE(transfers_.empty());
}

TEST_F(DirectTransfersTest, KeepsOneOfSeveralLargeReads) {
  std::vector<char> bytes(DirectTransfers::kLargeBytes);
  const std::array<iovec, 2> large = {iovec{bytes.data(), 1},
                                      iovec{bytes.data() + 1, bytes.size() - 1}};
  FileCall first = Call(FileCall::Kind::kRead, file_);
  first.buffers = large;
  FileCall second = first;
  EXPECT_TRUE(transfers_.Take(first));
  EXPECT_FALSE(transfers_.Take(second));
  EXPECT_TRUE(second.elsewhere);
  EXPECT_TRUE(Take(FileCall::Kind::kRead, file_)) << "a small one";
  FileCall left;
  EXPECT_TRUE(transfers_.next_is_large());
  EXPECT_TRUE(transfers_.RunOne(left));
  EXPECT_FALSE(transfers_.next_is_large());
  EXPECT_TRUE(transfers_.RunOne(left));
}

TEST_F(DirectTransfersTest, TriesFewReadsWhileTheyMiss) {
  EXPECT_EQ(SkippedBefore(missing_), 0);
  EXPECT_EQ(SkippedBefore(missing_), 1);
  EXPECT_EQ(SkippedBefore(missing_), 3);
  for (int i = 0; i < 10; ++i) SkippedBefore(missing_);
  EXPECT_EQ(SkippedBefore(missing_), 63);
  EXPECT_EQ(SkippedBefore(file_), 63);
  EXPECT_EQ(SkippedBefore(file_), 0);
  EXPECT_FALSE(op_.result != 0) << "an empty file reads as nothing";
}

TEST_F(DirectTransfersTest, LeavesWritesToTheEngineAfterOneThatTookLong) {
  EXPECT_TRUE(Write(9));
  EXPECT_TRUE(Write(10));
  EXPECT_FALSE(Write(0));
  now += 9;
  EXPECT_FALSE(Write(0));
  now += 1;
  EXPECT_TRUE(Write(500));
  now += 19;
  EXPECT_FALSE(Write(0));
  now += 1;
  // Quick ones make it forget.
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(Write(0));
  EXPECT_TRUE(Write(10));
  now += 10;
  EXPECT_TRUE(Write(0));
}

}  // namespace
}  // namespace bothy
