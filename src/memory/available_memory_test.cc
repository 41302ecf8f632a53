#include "memory/available_memory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "memory/layout.h"
#include "support/testing/test_folder.h"

namespace bothy::memory {
namespace {

// A host's /proc and /sys in a folder.
class AvailableMemoryTest : public ::testing::Test {
 protected:
  void File(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ / path).parent_path());
    root_.WriteText(path, text);
  }
  void Host(uint64_t available_mib, const std::string& cgroups) const {
    File("proc/meminfo", "MemTotal:  99999999 kB\nMemAvailable:   " +
                             std::to_string(available_mib * 1024) + " kB\n");
    File("proc/self/cgroup", cgroups);
  }
  // A cgroup of version 2.
  void Cgroup(const std::string& path, const std::string& limit, uint64_t usage,
              uint64_t cache = 0) const {
    File(path + "/memory.max", limit + "\n");
    File(path + "/memory.current", std::to_string(usage) + "\n");
    File(path + "/memory.stat", "anon 5\nactive_file " + std::to_string(cache / 2) +
                                    "\ninactive_file " + std::to_string(cache - cache / 2) + "\n");
  }
  [[nodiscard]] uint64_t Available() const { return AvailableMemoryBytes(root_.path()); }

  const TestFolder root_;
};

TEST_F(AvailableMemoryTest, IsTheHostsWithoutALimit) {
  Host(1000, "0::/user\n");
  EXPECT_EQ(Available(), 1000 * kMiB);
  Cgroup("sys/fs/cgroup/user", "max", 5 * kMiB);
  EXPECT_EQ(Available(), 1000 * kMiB);
}

TEST_F(AvailableMemoryTest, IsWhatTheTightestCgroupLeaves) {
  Host(1000, "0::/pods/vm/server\n");
  Cgroup("sys/fs/cgroup/pods/vm/server", std::to_string(900 * kMiB), 10 * kMiB);
  Cgroup("sys/fs/cgroup/pods/vm", std::to_string(300 * kMiB), 100 * kMiB);
  Cgroup("sys/fs/cgroup/pods", "max", 500 * kMiB);
  EXPECT_EQ(Available(), 200 * kMiB);
}

TEST_F(AvailableMemoryTest, KeepsBelowTheLimitThatThrottles) {
  Host(1000, "0::/vm\n");
  Cgroup("sys/fs/cgroup/vm", "max", 10 * kMiB);
  File("sys/fs/cgroup/vm/memory.high", std::to_string(50 * kMiB) + "\n");
  EXPECT_EQ(Available(), 40 * kMiB);
}

TEST_F(AvailableMemoryTest, CountsThePageCacheAsFree) {
  Host(1000, "0::/vm\n");
  Cgroup("sys/fs/cgroup/vm", std::to_string(300 * kMiB), 100 * kMiB, 80 * kMiB);
  EXPECT_EQ(Available(), 280 * kMiB);
}

TEST_F(AvailableMemoryTest, IsNothingInACgroupThatIsFull) {
  Host(1000, "0::/vm\n");
  Cgroup("sys/fs/cgroup/vm", std::to_string(300 * kMiB), 301 * kMiB);
  EXPECT_EQ(Available(), 0U);
}

TEST_F(AvailableMemoryTest, HeedsLimitsOfVersion1) {
  Host(1000, "5:cpu,cpuacct:/x\n4:memory:/vm\n0::/x\n");
  File("sys/fs/cgroup/memory/vm/memory.limit_in_bytes", std::to_string(64 * kMiB));
  File("sys/fs/cgroup/memory/vm/memory.usage_in_bytes", std::to_string(10 * kMiB));
  File("sys/fs/cgroup/memory/vm/memory.stat", "total_inactive_file 1048576\n");
  EXPECT_EQ(Available(), 55 * kMiB);
}

TEST_F(AvailableMemoryTest, SeesTheNearestAncestorFromAnotherNamespace) {
  Host(1000, "0::/../elsewhere\n");
  Cgroup("sys/fs/cgroup", std::to_string(100 * kMiB), 0);
  EXPECT_EQ(Available(), 100 * kMiB);
}

TEST_F(AvailableMemoryTest, IsUnlimitedWhereNothingTells) {
  EXPECT_EQ(Available(), UINT64_MAX);
  File("proc/self/cgroup", "nonsense\n0:\n:::\n0::\n");
  EXPECT_EQ(Available(), UINT64_MAX);
}

TEST(AvailableMemoryOfThisHostTest, IsSomething) {
  EXPECT_GT(AvailableMemoryBytes(), 0U);
  EXPECT_LT(AvailableMemoryBytes(), uint64_t{1} << 50);
}

}  // namespace
}  // namespace bothy::memory
