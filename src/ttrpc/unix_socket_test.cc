#include "ttrpc/unix_socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace bothy::ttrpc {
namespace {

using ::testing::HasSubstr;

class UnixSocketTest : public ::testing::Test {
 protected:
  UnixSocketTest() {
    std::string name = std::filesystem::temp_directory_path() / "bothy-socket-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "vm.sock";
  }
  ~UnixSocketTest() override { std::filesystem::remove_all(folder_); }

  // A socket file whose process is gone.
  void LeaveStaleSocket() {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(fd.get(), 1), 0);
  }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(UnixSocketTest, ListensAndConnects) {
  const auto bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok()) << bound.status();
  const auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok()) << client.status();
  const UniqueFd accepted(::accept(bound->fd.get(), nullptr, nullptr));
  ASSERT_TRUE(accepted.valid());
  EXPECT_EQ(::write(client->get(), "x", 1), 1);
  char byte;
  EXPECT_EQ(::read(accepted.get(), &byte, 1), 1);
}

TEST_F(UnixSocketTest, IsForItsOwnerOnlyWhateverTheUmask) {
  const mode_t before = ::umask(0);
  const auto bound = ListenUnix(path_);
  ::umask(before);
  ASSERT_TRUE(bound.ok()) << bound.status();
  struct stat found;
  ASSERT_EQ(::stat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 07777, 0600u);
}

TEST_F(UnixSocketTest, RemovesItsFileAtTheEnd) {
  { const auto bound = ListenUnix(path_); }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "nothing else is left either";
}

TEST_F(UnixSocketTest, LeavesAnothersFileAlone) {
  auto bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok()) << bound.status();
  std::filesystem::remove(path_);
  std::ofstream(path_) << "something else";
  bound->file.Remove();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, ReplacesAStaleSocket) {
  LeaveStaleSocket();
  ASSERT_EQ(ConnectUnix(path_).status().code(), absl::StatusCode::kUnavailable);
  const auto bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_TRUE(ConnectUnix(path_).ok());
}

TEST_F(UnixSocketTest, LeavesALiveSocketAlone) {
  const auto bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok());
  const auto second = ListenUnix(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(path_));
  EXPECT_TRUE(ConnectUnix(path_).ok());
}

TEST_F(UnixSocketTest, LeavesOtherFilesAlone) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::remove(path_);
  std::filesystem::create_symlink("nowhere", path_);
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(UnixSocketTest, OnlyOneOfManyReplacesAStaleSocket) {
  for (int round = 0; round < 20; ++round) {
    LeaveStaleSocket();
    std::atomic<int> won = 0;
    std::vector<absl::StatusOr<BoundSocket>> results(4);
    std::vector<std::thread> threads;
    threads.reserve(results.size());
    for (auto& result : results) threads.emplace_back([&] { result = ListenUnix(path_); });
    for (auto& thread : threads) thread.join();
    for (const auto& result : results) {
      if (result.ok()) {
        ++won;
      } else {
        EXPECT_EQ(result.status().code(), absl::StatusCode::kAlreadyExists) << result.status();
      }
    }
    EXPECT_EQ(won, 1);
    EXPECT_TRUE(ConnectUnix(path_).ok());
  }
}

TEST_F(UnixSocketTest, SaysSoWhenTheDirectoryStaysLocked) {
  const UniqueFd directory(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::flock(directory.get(), LOCK_EX), 0);
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(UnixSocketTest, TakesPathsThatDontFitAnAddress) {
  const std::filesystem::path deep = folder_ / std::string(100, 'd') / std::string(100, 'e');
  std::filesystem::create_directories(deep);
  path_ = deep / "vm.sock";
  const auto bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_TRUE(ConnectUnix(path_).ok());
  EXPECT_EQ(ListenUnix(path_).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(UnixSocketTest, TakesThePathThatJustFits) {
  const size_t longest = sizeof(sockaddr_un::sun_path) - 1;
  for (const size_t size : {longest - 1, longest, longest + 1}) {
    const std::string path = folder_ / std::string(size - folder_.string().size() - 1, 's');
    ASSERT_EQ(path.size(), size);
    const auto bound = ListenUnix(path);
    ASSERT_TRUE(bound.ok()) << bound.status();
    EXPECT_TRUE(std::filesystem::exists(path));
    EXPECT_TRUE(ConnectUnix(path).ok());
  }
}

TEST_F(UnixSocketTest, TakesAPathRelativeToTheWorkingDirectory) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  {
    const auto bound = ListenUnix("vm.sock");
    EXPECT_TRUE(bound.ok()) << bound.status();
    EXPECT_TRUE(std::filesystem::exists(path_));
    EXPECT_TRUE(ConnectUnix("vm.sock").ok());
  }
  std::filesystem::current_path(before);
}

TEST_F(UnixSocketTest, RefusesPathsThatCannotBe) {
  EXPECT_EQ(ListenUnix("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ListenUnix(folder_ / std::string(200, 'n')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ListenUnix(folder_ / "missing" / "vm.sock").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ListenUnix(std::string("a\0b", 3)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ConnectUnix(path_).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace bothy::ttrpc
