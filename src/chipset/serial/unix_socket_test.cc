#include "chipset/serial/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "chipset/testing/sockets.h"

namespace bothy::chipset {
namespace {

using absl::StatusCode;

class UnixSocketTest : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "com1";
};

TEST_F(UnixSocketTest, RefusesPathsThatNameNoSocket) {
  for (const std::string& path :
       {std::string(), std::string("a\0b", 3), std::string(108, 'x'), std::string("folder/")}) {
    EXPECT_EQ(ValidateSocketPath(path).code(), StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(UnixListener::Create(path).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(ConnectUnixSocket(path).status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(ValidateSocketPath(std::string(107, 'x')).ok());
  EXPECT_NE(ValidateSocketPath(std::string(108, 'x')).message().find("107"), std::string::npos);
}

TEST_F(UnixSocketTest, ListensForItsOwnerOnlyAndLeavesNoOtherName) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat status;
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(folder_.Entries(), 1u);
  EXPECT_TRUE(ConnectUnixSocket(path_).ok());
}

TEST_F(UnixSocketTest, RemovesItsPathWhenItGoes) {
  {
    absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
    ASSERT_TRUE(listener.ok());
    // A move takes the path along.
    UnixListener moved = std::move(listener).value();
    listener = absl::CancelledError();
    EXPECT_TRUE(Exists(path_));
  }
  EXPECT_FALSE(Exists(path_));
}

TEST_F(UnixSocketTest, LeavesAPathThatSomebodyElseTook) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  const UniqueFd other = BindSocket(path_, /*listen=*/true);
  listener->RemovePath();
  EXPECT_TRUE(Exists(path_));
}

TEST_F(UnixSocketTest, ReplacesAStaleSocket) {
  BindSocket(path_, /*listen=*/true).Reset();
  ASSERT_TRUE(Exists(path_));
  EXPECT_EQ(ConnectUnixSocket(path_).status().code(), StatusCode::kFailedPrecondition);
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(ConnectUnixSocket(path_).ok());
  EXPECT_EQ(folder_.Entries(), 1u);
}

TEST_F(UnixSocketTest, LeavesALiveSocketAlone) {
  const UniqueFd other = BindSocket(path_, /*listen=*/true);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAborted);
  EXPECT_TRUE(ConnectUnixSocket(path_).ok());
  EXPECT_EQ(folder_.Entries(), 1u);
}

TEST_F(UnixSocketTest, LeavesOtherFilesAlone) {
  WriteFile(path_, "precious");
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  const std::string link = folder_ / "link";
  std::filesystem::create_symlink("nowhere", link);
  EXPECT_EQ(UnixListener::Create(link).status().code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(folder_.Entries(), 2u);
}

TEST_F(UnixSocketTest, NamesWhatIsMissing) {
  EXPECT_EQ(UnixListener::Create(folder_ / "no/com1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectUnixSocket(folder_ / "no/com1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectUnixSocket(path_).status().code(), StatusCode::kNotFound);
  WriteFile(path_, "");
  EXPECT_EQ(UnixListener::Create(path_ + "/com1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectUnixSocket(path_).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(UnixSocketTest, TellsOtherKindsOfSockets) {
  const UniqueFd datagrams = BindSocket(path_, /*listen=*/false, SOCK_DGRAM);
  EXPECT_EQ(ConnectUnixSocket(path_).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(Exists(path_));
}

TEST_F(UnixSocketTest, AFullBacklogIsSomebodyWhoListens) {
  UniqueFd listener = BindSocket(path_, /*listen=*/false);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  std::vector<UniqueFd> waiting;
  absl::StatusOr<UniqueFd> next = ConnectUnixSocket(path_);
  while (next.ok()) {
    waiting.push_back(std::move(next).value());
    next = ConnectUnixSocket(path_);
  }
  EXPECT_EQ(next.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAborted);
}

TEST_F(UnixSocketTest, TakesTheLongestPath) {
  // So long that the name used before linking fits only through /proc.
  const std::string base = folder_ / "";
  std::string folder = base + std::string(105 - base.size(), 'f');
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/c";
  ASSERT_EQ(path.size(), kMaxSocketPath);
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(ConnectUnixSocket(path).ok());
  listener->RemovePath();
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(UnixSocketTest, OfManyThatTryAtOnceOneListens) {
  for (const bool stale : {false, true}) {
    for (int round = 0; round < 50; ++round) {
      if (stale) BindSocket(path_, /*listen=*/true).Reset();
      // Replacing is exact between two, and then a matter of luck: it takes three steps.
      std::vector<absl::StatusOr<UnixListener>> listeners(stale ? 2 : 4);
      std::vector<std::thread> threads;
      threads.reserve(listeners.size());
      for (auto& listener : listeners) {
        threads.emplace_back([&] { listener = UnixListener::Create(path_); });
      }
      for (std::thread& thread : threads) thread.join();
      int listening = 0;
      for (const auto& listener : listeners) {
        listening += listener.ok();
        if (!listener.ok()) {
          EXPECT_EQ(listener.status().code(), StatusCode::kAborted) << listener.status();
        }
      }
      EXPECT_EQ(listening, 1);
      EXPECT_TRUE(ConnectUnixSocket(path_).ok());
      EXPECT_EQ(folder_.Entries(), 1u);
      listeners.clear();
      EXPECT_FALSE(Exists(path_));
    }
  }
}

}  // namespace
}  // namespace bothy::chipset
