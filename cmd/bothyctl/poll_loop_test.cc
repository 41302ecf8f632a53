#include "cmd/bothyctl/poll_loop.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

namespace bothy::bothyctl {
namespace {

TEST(PollLoopTest, IsDoneAtOnceWhenItIs) {
  PollLoop loop;
  EXPECT_TRUE(loop.RunUntil([] { return true; }));
}

TEST(PollLoopTest, EndsAtItsDeadline) {
  PollLoop loop;
  EXPECT_FALSE(loop.RunUntil([] { return false; }, PollLoop::Clock::now()));
}

TEST(PollLoopTest, RunsWhatOtherThreadsPostInOrder) {
  PollLoop loop;
  std::vector<int> seen;
  std::thread thread([&] {
    for (int i = 0; i < 3; ++i) loop.Post([&seen, i] { seen.push_back(i); });
  });
  EXPECT_TRUE(loop.RunUntil([&] { return seen.size() == 3; }));
  thread.join();
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2}));
}

TEST(PollLoopTest, CallsBackForDescriptorsThatAreReady) {
  PollLoop loop;
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const UniqueFd ours(fds[0]);
  const UniqueFd theirs(fds[1]);
  std::string read;
  loop.Watch(ours.get(), POLLIN, [&] {
    char byte = 0;
    ASSERT_EQ(::read(ours.get(), &byte, 1), 1);
    read += byte;
  });
  ASSERT_EQ(::write(theirs.get(), "ab", 2), 2);
  EXPECT_TRUE(loop.RunUntil([&] { return read == "ab"; }));
}

TEST(PollLoopTest, DoesNotCallBackWhatACallbackUnwatched) {
  PollLoop loop;
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const UniqueFd first(fds[0]);
  const UniqueFd second(fds[1]);
  int calls = 0;
  const auto once = [&] {
    ++calls;
    loop.Unwatch(first.get());
    loop.Unwatch(second.get());
  };
  loop.Watch(first.get(), POLLOUT, once);
  loop.Watch(second.get(), POLLOUT, once);
  EXPECT_TRUE(loop.RunUntil([&] { return calls > 0; }));
  EXPECT_EQ(calls, 1);
}

TEST(PollLoopTest, WatchesRegularFiles) {
  PollLoop loop;
  std::FILE* const file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  bool ready = false;
  loop.Watch(::fileno(file), POLLIN, [&] { ready = true; });
  EXPECT_TRUE(loop.RunUntil([&] { return ready; }));
  std::fclose(file);
}

}  // namespace
}  // namespace bothy::bothyctl
