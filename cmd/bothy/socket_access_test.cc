#include "socket_access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "support/testing/test_folder.h"
#include "support/unix_socket.h"

namespace bothy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kAttribute[] = "system.posix_acl_access";

class SocketAccessTest : public ::testing::Test {
 protected:
  SocketAccessTest() {
    absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
    EXPECT_TRUE(listener.ok()) << listener.status();
    listener_ = std::move(listener).value();
  }

  void SetUp() override {
    if (::getxattr(folder_.path().c_str(), kAttribute, nullptr, 0) < 0 && errno == EOPNOTSUPP) {
      GTEST_SKIP() << "no access control lists on the file system of " << folder_.path();
    }
  }

  // The words of the list, two bytes each; empty: none.
  [[nodiscard]] std::vector<uint16_t> AccessList() const {
    std::vector<uint16_t> words(256);
    const ssize_t size = ::getxattr(path_.c_str(), kAttribute, words.data(), 2 * words.size());
    words.resize(size < 0 ? 0 : static_cast<size_t>(size) / 2);
    return words;
  }
  [[nodiscard]] mode_t Mode() const {
    struct stat status;
    EXPECT_EQ(::stat(path_.c_str(), &status), 0);
    return status.st_mode & 07777;
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "vm.sock";
  UnixListener listener_;
};

TEST_F(SocketAccessTest, ListsTheUsersInOrderAndOnce) {
  EXPECT_EQ(GrantAccess(path_, {65534, 70000, 0, ::geteuid(), 65534, 3}), absl::OkStatus());
  constexpr uint16_t kNone = 0xFFFF;
  EXPECT_THAT(AccessList(), ElementsAre(2, 0,                   // version
                                        1, 6, kNone, kNone,     // the owner
                                        2, 6, 3, 0,             // users
                                        2, 6, 65534, 0,         //
                                        2, 6, 4464, 1,          // 70000
                                        4, 0, kNone, kNone,     // the group
                                        0x10, 6, kNone, kNone,  // mask
                                        0x20, 0, kNone, kNone));
  EXPECT_EQ(Mode(), 0660u) << "the mask shows as the group's permissions";
}

TEST_F(SocketAccessTest, LeavesTheFileAloneWithoutAnybodyElse) {
  EXPECT_EQ(GrantAccess(path_, {}), absl::OkStatus());
  EXPECT_EQ(GrantAccess(path_, {0, ::geteuid()}), absl::OkStatus());
  EXPECT_THAT(AccessList(), IsEmpty());
  EXPECT_EQ(Mode(), 0600u);
}

TEST_F(SocketAccessTest, TouchesNothingButASocket) {
  listener_.RemovePath();
  EXPECT_EQ(GrantAccess(path_, {3}).code(), absl::StatusCode::kNotFound);
  const std::string precious = folder_ / "precious";
  std::ofstream(precious) << "x";
  std::filesystem::create_symlink(precious, path_);
  EXPECT_EQ(GrantAccess(path_, {3}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GrantAccess(precious, {3}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_LT(::getxattr(precious.c_str(), kAttribute, nullptr, 0), 0);
}

}  // namespace
}  // namespace bothy
