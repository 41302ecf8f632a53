#include "support/unix_socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/testing/test_folder.h"

namespace bothy {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

absl::StatusOr<UniqueFd> ConnectNow(const std::string& path) {
  return ConnectUnix(path, ConnectMode::kNonBlocking);
}

void WriteFile(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

bool Exists(const std::string& path) {
  return std::filesystem::exists(std::filesystem::symlink_status(path));
}

// A socket as other programs bind it.
UniqueFd BindSocket(const std::string& path, bool listen, int type = SOCK_STREAM) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  if (listen) {
    EXPECT_EQ(::listen(fd.get(), 4), 0);
  }
  return fd;
}

// A socket file whose process is gone.
void LeaveStaleSocket(const std::string& path) { BindSocket(path, /*listen=*/true).Reset(); }

class UnixSocketTest : public ::testing::Test {
 protected:
  // Names in the folder.
  [[nodiscard]] size_t Entries() const { return test_folder_.Names().size(); }
  // What claims the right to replace the file at `path`.
  [[nodiscard]] std::string ClaimOn(const std::string& path) const {
    struct stat status;
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    return folder_ / absl::StrCat(".bothy-replaces-", absl::Hex(status.st_ino));
  }

  // `count` servers that start on path_ at once: exactly one may have it.
  void ExpectOneOf(size_t count) {
    std::vector<absl::StatusOr<UnixListener>> listeners(count);
    std::vector<std::thread> threads;
    threads.reserve(count);
    std::latch start(static_cast<ptrdiff_t>(count));
    for (auto& listener : listeners) {
      threads.emplace_back([&] {
        start.arrive_and_wait();
        listener = UnixListener::Create(path_);
      });
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
    EXPECT_TRUE(ConnectNow(path_).ok());
    EXPECT_EQ(Entries(), 1u);
    listeners.clear();
    EXPECT_EQ(Entries(), 0u);
  }

  const TestFolder test_folder_;
  const std::filesystem::path folder_{test_folder_.path()};
  const std::string path_ = test_folder_ / "vm.sock";
};

TEST_F(UnixSocketTest, ValidatesPathsForAnybody) {
  for (const std::string& path :
       {std::string(), std::string("a\0b", 3), std::string(108, 'x'), std::string("folder/")}) {
    EXPECT_EQ(ValidateSocketPath(path).code(), StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(UnixListener::Create(path).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(ConnectNow(path).status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(ValidateSocketPath(std::string(107, 'x')).ok());
  EXPECT_THAT(std::string(ValidateSocketPath(std::string(108, 'x')).message()), HasSubstr("107"));
}

TEST_F(UnixSocketTest, ListensAndConnects) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  const UniqueFd socket = listener->TakeSocket();
  EXPECT_FALSE(listener->valid());
  EXPECT_NE(::fcntl(socket.get(), F_GETFL) & O_NONBLOCK, 0);
  for (const ConnectMode mode : {ConnectMode::kBlocking, ConnectMode::kNonBlocking}) {
    const auto client = ConnectUnix(path_, mode);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_EQ((::fcntl(client->get(), F_GETFL) & O_NONBLOCK) != 0,
              mode == ConnectMode::kNonBlocking);
    const UniqueFd accepted(::accept(socket.get(), nullptr, nullptr));
    ASSERT_TRUE(accepted.valid());
    EXPECT_EQ(::write(client->get(), "x", 1), 1);
    char byte;
    EXPECT_EQ(::read(accepted.get(), &byte, 1), 1);
  }
}

TEST_F(UnixSocketTest, IsForItsOwnerOnlyWhateverTheUmask) {
  const mode_t before = ::umask(0);
  const auto listener = UnixListener::Create(path_);
  ::umask(before);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat found;
  ASSERT_EQ(::stat(path_.c_str(), &found), 0);
  EXPECT_TRUE(S_ISSOCK(found.st_mode));
  EXPECT_EQ(found.st_mode & 07777, 0600u);
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(UnixSocketTest, RemovesItsPathWhenItGoes) {
  {
    absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
    ASSERT_TRUE(listener.ok());
    // A move takes the path along.
    UnixListener moved = std::move(listener).value();
    listener = absl::CancelledError();
    EXPECT_TRUE(Exists(path_));
    const SocketFile file = moved.TakeFile();
    moved = UnixListener();
    EXPECT_TRUE(Exists(path_));
  }
  EXPECT_EQ(Entries(), 0u);
}

TEST_F(UnixSocketTest, LeavesAPathThatSomebodyElseTook) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  WriteFile(path_, "something else");
  listener->RemovePath();
  EXPECT_TRUE(Exists(path_));
}

TEST_F(UnixSocketTest, ReplacesAStaleSocket) {
  LeaveStaleSocket(path_);
  EXPECT_EQ(ConnectNow(path_).status().code(), StatusCode::kFailedPrecondition);
  const absl::StatusOr<UnixListener> listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(ConnectNow(path_).ok());
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(UnixSocketTest, LeavesALiveSocketAlone) {
  const UniqueFd other = BindSocket(path_, /*listen=*/true);
  const absl::Status status = UnixListener::Create(path_).status();
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_TRUE(ConnectNow(path_).ok());
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(UnixSocketTest, LeavesOtherFilesAlone) {
  WriteFile(path_, "precious");
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  std::filesystem::remove(path_);
  std::filesystem::create_symlink("nowhere", path_);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(UnixSocketTest, NamesWhatIsMissing) {
  const std::string inside = folder_ / "no" / "vm.sock";
  EXPECT_EQ(UnixListener::Create(inside).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectNow(inside).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectNow(path_).status().code(), StatusCode::kNotFound);
  WriteFile(path_, "");
  EXPECT_EQ(UnixListener::Create(path_ + "/com1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ConnectNow(path_).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(UnixSocketTest, TellsOtherKindsOfSockets) {
  const UniqueFd datagrams = BindSocket(path_, /*listen=*/false, SOCK_DGRAM);
  EXPECT_EQ(ConnectNow(path_).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(Exists(path_));
}

TEST_F(UnixSocketTest, AFullBacklogIsSomebodyWhoListens) {
  const absl::StatusOr<UnixListener> listener = UnixListener::Create(path_, /*backlog=*/0);
  ASSERT_TRUE(listener.ok()) << listener.status();
  std::vector<UniqueFd> waiting;
  absl::StatusOr<UniqueFd> next = ConnectNow(path_);
  while (next.ok()) {
    waiting.push_back(std::move(next).value());
    next = ConnectNow(path_);
  }
  EXPECT_EQ(next.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAborted);
}

TEST_F(UnixSocketTest, TakesPathsThatDontFitAnAddress) {
  const std::filesystem::path deep = folder_ / std::string(100, 'd') / std::string(100, 'e');
  std::filesystem::create_directories(deep);
  const std::string path = deep / "vm.sock";
  for (const bool stale : {false, true}) {
    if (stale) {
      const std::string short_path = folder_ / "stale.sock";
      LeaveStaleSocket(short_path);
      std::filesystem::rename(short_path, path);
    }
    const auto listener = UnixListener::Create(path);
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_TRUE(ConnectNow(path).ok());
    EXPECT_EQ(UnixListener::Create(path).status().code(), StatusCode::kAborted);
  }
  EXPECT_TRUE(std::filesystem::is_empty(deep));
  EXPECT_EQ(UnixListener::Create(folder_ / std::string(200, 'n')).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(ConnectNow(folder_ / std::string(200, 'n')).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(UnixSocketTest, TakesThePathThatJustFits) {
  for (const size_t size : {kMaxSocketPath - 1, kMaxSocketPath, kMaxSocketPath + 1}) {
    // Long names of files, and short ones in a folder where the name before linking doesn't fit.
    const std::filesystem::path folder =
        folder_ / std::string(kMaxSocketPath - 4 - folder_.string().size(), 'f');
    std::filesystem::create_directory(folder);
    for (const std::filesystem::path& in : {folder_, folder}) {
      const std::string path = in / std::string(size - in.string().size() - 1, 's');
      ASSERT_EQ(path.size(), size);
      const auto listener = UnixListener::Create(path);
      ASSERT_TRUE(listener.ok()) << listener.status();
      EXPECT_TRUE(Exists(path));
      EXPECT_TRUE(ConnectNow(path).ok());
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder));
  }
}

TEST_F(UnixSocketTest, TakesAPathRelativeToTheWorkingDirectory) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  {
    const auto listener = UnixListener::Create("vm.sock");
    EXPECT_TRUE(listener.ok()) << listener.status();
    EXPECT_TRUE(Exists(path_));
    EXPECT_TRUE(ConnectNow("vm.sock").ok());
    std::filesystem::current_path(before);
  }
  EXPECT_FALSE(Exists(path_));
}

TEST_F(UnixSocketTest, NoLockOnTheFolderIsInItsWay) {
  const UniqueFd directory(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::flock(directory.get(), LOCK_EX), 0);
  LeaveStaleSocket(path_);
  EXPECT_TRUE(UnixListener::Create(path_).ok());
}

TEST_F(UnixSocketTest, OfManyThatTryAtOnceOneListens) {
  for (int round = 0; round < 50; ++round) ExpectOneOf(8);
}

TEST_F(UnixSocketTest, OfManyThatReplaceAStaleSocketOneListens) {
  for (int round = 0; round < 50; ++round) {
    LeaveStaleSocket(path_);
    ExpectOneOf(8);
  }
}

TEST_F(UnixSocketTest, OfManyOneReplacesWhatServersLeftThatDiedWhileReplacing) {
  for (int round = 0; round < 50; ++round) {
    LeaveStaleSocket(path_);
    const std::string claim = ClaimOn(path_);
    LeaveStaleSocket(claim);
    LeaveStaleSocket(ClaimOn(claim));
    ExpectOneOf(8);
  }
}

TEST_F(UnixSocketTest, ALiveClaimIsRespected) {
  LeaveStaleSocket(path_);
  const UniqueFd claim = BindSocket(ClaimOn(path_), /*listen=*/true);
  EXPECT_EQ(UnixListener::Create(path_).status().code(), StatusCode::kAborted);
  EXPECT_EQ(ConnectNow(path_).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Entries(), 2u);
}

}  // namespace
}  // namespace bothy
