#include "disk/image_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <latch>
#include <thread>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/testing/test_folder.h"
#include "support/unique_fd.h"

namespace bothy::disk {
namespace {

using ::testing::HasSubstr;

class ImageLockTest : public ::testing::Test {
 protected:
  ImageLockTest() : path_(folder_.path() + "/image") {
    std::ofstream(path_) << std::string(65536, 'x');
  }
  absl::Status Lock(UniqueFd& fd, bool read_only) const {
    fd.Reset(::open(path_.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    return LockImage(fd.get(), read_only, path_);
  }

  TestFolder folder_;
  const std::string path_;
};

TEST_F(ImageLockTest, AWriterExcludesEverybody) {
  UniqueFd writer;
  UniqueFd other;
  ASSERT_TRUE(Lock(writer, false).ok());
  const absl::Status second = Lock(other, false);
  EXPECT_TRUE(absl::IsFailedPrecondition(second));
  EXPECT_THAT(std::string(second.message()), HasSubstr(path_ + ": in use by this process"));
  EXPECT_TRUE(absl::IsFailedPrecondition(Lock(other, true)));
  writer.Reset();
  EXPECT_TRUE(Lock(other, false).ok());
}

TEST_F(ImageLockTest, ReadersShareAndExcludeWriters) {
  UniqueFd one;
  UniqueFd two;
  UniqueFd writer;
  ASSERT_TRUE(Lock(one, true).ok());
  EXPECT_TRUE(Lock(two, true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Lock(writer, false)));
  one.Reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(Lock(writer, false)));
  two.Reset();
  EXPECT_TRUE(Lock(writer, false).ok());
}

TEST_F(ImageLockTest, NamesTheOtherProcess) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    UniqueFd fd;
    const char byte = Lock(fd, false).ok() ? 'y' : 'n';
    (void)!::write(ready[1], &byte, 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  UniqueFd fd;
  const absl::Status status = Lock(fd, true);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("(pid ", child, ")")));
}

TEST_F(ImageLockTest, WaitsForALockOfNobody) {
  // A file that is on its way through a socket is open, but in no process's table.
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  UniqueFd writer;
  ASSERT_TRUE(Lock(writer, false).ok());
  char byte = 0;
  iovec data = {.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = writer.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  ASSERT_EQ(::sendmsg(in.get(), &message, 0), 1);
  writer.Reset();
  std::latch looking(1);
  std::thread releaser([&] {
    looking.wait();
    in.Reset();
    out.Reset();
  });
  looking.count_down();
  UniqueFd other;
  EXPECT_EQ(Lock(other, false), absl::OkStatus());
  releaser.join();
}

// A qemu-io that has the image open until the object goes.
class QemuHolder {
 public:
  QemuHolder(const std::string& path, bool read_only) {
    int commands[2];
    int answers[2];
    CHECK(::pipe2(commands, O_CLOEXEC) == 0 && ::pipe2(answers, O_CLOEXEC) == 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(commands[0], STDIN_FILENO);
      ::dup2(answers[1], STDOUT_FILENO);
      if (read_only) ::execlp("qemu-io", "qemu-io", "-f", "raw", "-r", path.c_str(), nullptr);
      ::execlp("qemu-io", "qemu-io", "-f", "raw", path.c_str(), nullptr);
      ::_exit(127);
    }
    commands_.Reset(commands[1]);
    UniqueFd ignored(commands[0]);
    UniqueFd also_ignored(answers[1]);
    const UniqueFd output(answers[0]);
    CHECK(::write(commands_.get(), "length\n", 7) == 7);
    also_ignored.Reset();
    // It answers once it has the image, with the size.
    std::string seen;
    for (char byte = 0; seen.find("64 KiB") == std::string::npos; seen += byte) {
      CHECK(::read(output.get(), &byte, 1) == 1);
    }
  }
  ~QemuHolder() {
    commands_.Reset();
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }

 private:
  UniqueFd commands_;
  pid_t child_ = -1;
};

int RunQemuIo(const std::string& arguments) {
  return std::system(absl::StrCat("qemu-io -f raw ", arguments, " >/dev/null 2>&1").c_str());
}

TEST_F(ImageLockTest, QemuHeedsIt) {
  if (RunQemuIo("--version") != 0) GTEST_SKIP() << "no qemu-io";
  const std::string reading = absl::StrCat("-r -c 'read 0 512' ", path_);
  const std::string writing = absl::StrCat("-c 'read 0 512' ", path_);
  EXPECT_EQ(RunQemuIo(reading), 0);
  EXPECT_EQ(RunQemuIo(writing), 0);
  UniqueFd fd;
  ASSERT_TRUE(Lock(fd, false).ok());
  EXPECT_NE(RunQemuIo(reading), 0);
  EXPECT_NE(RunQemuIo(writing), 0);
  ASSERT_TRUE(Lock(fd, true).ok());
  EXPECT_EQ(RunQemuIo(reading), 0);
  EXPECT_NE(RunQemuIo(writing), 0);
}

TEST_F(ImageLockTest, QemuIsHeeded) {
  if (RunQemuIo("--version") != 0) GTEST_SKIP() << "no qemu-io";
  UniqueFd fd;
  {
    const QemuHolder writer(path_, false);
    EXPECT_TRUE(absl::IsFailedPrecondition(Lock(fd, false)));
    EXPECT_TRUE(absl::IsFailedPrecondition(Lock(fd, true)));
  }
  {
    const QemuHolder reader(path_, true);
    EXPECT_TRUE(absl::IsFailedPrecondition(Lock(fd, false)));
    EXPECT_TRUE(Lock(fd, true).ok());
  }
}

}  // namespace
}  // namespace bothy::disk
