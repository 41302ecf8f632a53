#include "cmd/bothyctl/output_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <future>
#include <string>

#include "support/unique_fd.h"

namespace bothy::bothyctl {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    read_end.Reset(fds[0]);
    write_end.Reset(fds[1]);
  }
  std::string Read(size_t size) const {
    std::string bytes(size, '\0');
    size_t done = 0;
    while (done < size) {
      const ssize_t n = ::read(read_end.get(), bytes.data() + done, size - done);
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    bytes.resize(done);
    return bytes;
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

// More than any pipe holds.
const std::string kMuch(4 << 20, 'x');

TEST(OutputWriterTest, WritesInOrder) {
  Pipe pipe;
  OutputWriter writer(pipe.write_end.get(), [] {});
  writer.Write("one ");
  writer.Write("two ");
  writer.Write("three");
  EXPECT_EQ(pipe.Read(13), "one two three");
}

TEST(OutputWriterTest, NeverKeepsItsCaller) {
  Pipe pipe;
  std::promise<void> flushed;
  OutputWriter writer(pipe.write_end.get(), [&] { flushed.set_value(); });
  writer.Write(kMuch);
  writer.Write("end");
  EXPECT_GT(writer.backlog(), 0U);
  EXPECT_EQ(pipe.Read(kMuch.size() + 3), kMuch + "end");
  writer.NotifyAt(0);
  flushed.get_future().wait();
  EXPECT_EQ(writer.backlog(), 0U);
}

TEST(OutputWriterTest, NotifiesAtOnceWhenNothingIsLeft) {
  Pipe pipe;
  int notified = 0;
  OutputWriter writer(pipe.write_end.get(), [&] { ++notified; });
  writer.NotifyAt(0);
  EXPECT_EQ(notified, 1);
}

TEST(OutputWriterTest, TellsOfAReaderThatLeft) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  std::promise<void> failed;
  OutputWriter writer(pipe.write_end.get(), [&] { failed.set_value(); });
  pipe.read_end.Reset();
  writer.Write(kMuch);
  failed.get_future().wait();
  EXPECT_EQ(writer.error(), EPIPE);
  writer.Write("more");
  EXPECT_EQ(writer.backlog(), 0U);
}

TEST(OutputWriterTest, WaitsForRoomOfANonBlockingOutput) {
  Pipe pipe;
  ASSERT_EQ(::fcntl(pipe.write_end.get(), F_SETFL, O_NONBLOCK), 0);
  OutputWriter writer(pipe.write_end.get(), [] {});
  writer.Write(kMuch);
  EXPECT_EQ(pipe.Read(kMuch.size()), kMuch);
}

TEST(OutputWriterTest, CanBeLeftWithAWriteThatNobodyTakes) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  {
    OutputWriter writer(pipe.write_end.get(), [] { FAIL() << "called after the end"; });
    writer.Write(kMuch);
    // Once something has come through, its write is under way.
    EXPECT_EQ(pipe.Read(1), "x");
    writer.NotifyAt(0);
  }
  // What had been queued goes no further than the write under way; the writer's thread ends.
  pipe.read_end.Reset();
}

}  // namespace
}  // namespace bothy::bothyctl
