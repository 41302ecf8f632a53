#include "support/io_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <numeric>
#include <optional>
#include <thread>

#include "support/testing/test_folder.h"
#include "support/unique_fd.h"

namespace bothy {
namespace {

class Op final : public IoLoop::Operation {
 public:
  void Complete(int64_t value) override {
    result = value;
    thread = std::this_thread::get_id();
    if (then) then();
  }
  std::optional<int64_t> result;
  std::thread::id thread;
  std::function<void()> then;
};

UniqueFd Event() { return UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }
void Signal(int fd) {
  const uint64_t one = 1;
  ASSERT_EQ(::write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
}

class IoLoopTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  IoLoopTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
    fd_.Reset(::open((folder_.path() + "/file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  }
  int64_t Wait(Op& op) {
    loop_->RunUntil([&op] { return op.result.has_value(); });
    return *op.result;
  }
  int64_t Write(std::string_view text, uint64_t offset) {
    Op op;
    const iovec buffer = {const_cast<char*>(text.data()), text.size()};
    loop_->Write(fd_.get(), std::span(&buffer, 1), offset, op);
    EXPECT_FALSE(op.result.has_value());
    return Wait(op);
  }
  int64_t Read(int fd, std::span<char> bytes, uint64_t offset) {
    Op op;
    const iovec buffer = {bytes.data(), bytes.size()};
    loop_->Read(fd, std::span(&buffer, 1), offset, op);
    EXPECT_FALSE(op.result.has_value());
    return Wait(op);
  }

  TestFolder folder_;
  UniqueFd fd_;
  std::unique_ptr<IoLoop> loop_;
};

TEST_P(IoLoopTest, HasTheEngineThatWasAskedFor) { EXPECT_EQ(loop_->engine(), GetParam()); }

TEST_P(IoLoopTest, ReadsWhatWasWrittenIntoAllBuffers) {
  EXPECT_EQ(Write("0123456789", 5), 10);
  std::array<char, 4> a{};
  std::array<char, 6> b{};
  const std::array<iovec, 2> buffers = {iovec{a.data(), a.size()}, iovec{b.data(), b.size()}};
  Op op;
  loop_->Read(fd_.get(), buffers, 4, op);
  EXPECT_FALSE(op.result.has_value()) << "completed inside the call";
  EXPECT_EQ(Wait(op), 10);
  EXPECT_EQ(op.thread, std::this_thread::get_id());
  EXPECT_EQ(std::string(a.data(), a.size()), std::string("\0"
                                                         "012",
                                                         4));
  EXPECT_EQ(std::string(b.data(), b.size()), "345678");
}

TEST_P(IoLoopTest, ReadsAreShortAtTheEndOfAFile) {
  EXPECT_EQ(Write("0123456789", 0), 10);
  std::array<char, 8> bytes{};
  EXPECT_EQ(Read(fd_.get(), bytes, 6), 4);
  EXPECT_EQ(Read(fd_.get(), bytes, 10), 0);
}

TEST_P(IoLoopTest, ReadsFilesThatCannotSayWhetherTheyWouldWait) {
  // procfs refuses RWF_NOWAIT.
  const UniqueFd version(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  for (int i = 0; i < 10; ++i) {
    std::array<char, 5> bytes{};
    ASSERT_EQ(Read(version.get(), bytes, 0), 5);
    ASSERT_EQ(std::string(bytes.data(), 5), "Linux");
  }
}

TEST_P(IoLoopTest, ErrorsAreNegativeErrno) {
  const UniqueFd write_only(::open((folder_.path() + "/file").c_str(), O_WRONLY | O_CLOEXEC));
  std::array<char, 8> bytes{};
  EXPECT_EQ(Read(write_only.get(), bytes, 0), -EBADF);
  Op op;
  loop_->Fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE, 0, 4096, op);  // needs KEEP_SIZE, too
  EXPECT_EQ(Wait(op), -EOPNOTSUPP);
  Op sync;
  loop_->Fsync(-1, IoLoop::Sync::kData, sync);
  EXPECT_EQ(Wait(sync), -EBADF);
}

TEST_P(IoLoopTest, AllocatesAndSyncs) {
  Op allocate;
  loop_->Fallocate(fd_.get(), 0, 0, 100'000, allocate);
  EXPECT_EQ(Wait(allocate), 0);
  struct stat status {};
  ASSERT_EQ(::fstat(fd_.get(), &status), 0);
  EXPECT_EQ(status.st_size, 100'000);
  for (const IoLoop::Sync what : {IoLoop::Sync::kAll, IoLoop::Sync::kData}) {
    Op sync;
    loop_->Fsync(fd_.get(), what, sync);
    EXPECT_EQ(Wait(sync), 0);
  }
}

TEST_P(IoLoopTest, BlockingCallsRunOnAnotherThread) {
  Op op;
  std::thread::id caller;
  loop_->RunBlocking(
      [&caller]() -> int64_t {
        caller = std::this_thread::get_id();
        return -7;
      },
      op);
  EXPECT_EQ(Wait(op), -7);
  EXPECT_NE(caller, std::this_thread::get_id());
  EXPECT_EQ(op.thread, std::this_thread::get_id());
}

// More than a ring or a completion queue holds, begun before the loop has ever run and after.
TEST_P(IoLoopTest, TenThousandOperationsInFlight) {
  constexpr size_t kCount = 10'000;
  std::string text(kCount * 2, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 + i / 256);
  ASSERT_EQ(::pwrite(fd_.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  const UniqueFd version(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  for (int round = 0; round < 2; ++round) {
    std::deque<Op> ops(kCount);
    std::vector<std::array<char, 2>> bytes(kCount);
    std::vector<iovec> buffers(kCount);
    size_t done = 0;
    for (size_t i = 0; i < kCount; ++i) {
      buffers[i] = {bytes[i].data(), 2};
      ops[i].then = [&done] { ++done; };
      // Some that only the engine can do, some that need no waiting.
      if (i % 3 == 0) {
        loop_->Fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, 0, 1, ops[i]);
      } else if (i % 3 == 1) {
        loop_->Read(version.get(), std::span(&buffers[i], 1), 0, ops[i]);
      } else {
        loop_->Read(fd_.get(), std::span(&buffers[i], 1), 2 * i, ops[i]);
      }
    }
    EXPECT_EQ(done, 0U);
    loop_->RunUntil([&done] { return done == kCount; });
    for (size_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(ops[i].result, i % 3 == 0 ? 0 : 2) << i;
      const std::string expected = i % 3 == 1 ? "Li" : text.substr(2 * i, 2);
      if (i % 3 != 0) {
        ASSERT_EQ(std::string(bytes[i].data(), 2), expected) << i;
      }
    }
  }
}

// Some of these are copied by other threads.
TEST_P(IoLoopTest, SeveralLargeReadsAtOnce) {
  constexpr size_t kCount = 8;
  constexpr size_t kBytes = 256 << 10;
  for (size_t i = 0; i < kCount; ++i) {
    const std::string text(kBytes, static_cast<char>('a' + i));
    ASSERT_EQ(Write(text, i * kBytes), static_cast<int64_t>(kBytes));
  }
  std::deque<Op> ops(kCount);
  std::vector<std::string> results(kCount, std::string(kBytes, ' '));
  std::vector<iovec> buffers;
  for (std::string& result : results) buffers.push_back({result.data(), kBytes});
  size_t done = 0;
  for (size_t i = 0; i < kCount; ++i) {
    ops[i].then = [&done] { ++done; };
    loop_->Read(fd_.get(), std::span(&buffers[i], 1), i * kBytes, ops[i]);
  }
  EXPECT_EQ(done, 0U);
  loop_->RunUntil([&done] { return done == kCount; });
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(ops[i].result, static_cast<int64_t>(kBytes));
    EXPECT_EQ(ops[i].thread, std::this_thread::get_id());
    EXPECT_EQ(results[i], std::string(kBytes, static_cast<char>('a' + i)));
  }
}

TEST_P(IoLoopTest, OperationsBeginOthersFromTheirCompletion) {
  ASSERT_EQ(Write("x", 0), 1);
  std::array<char, 1> byte{};
  const iovec buffer = {byte.data(), 1};
  Op op;
  int left = 1000;
  op.then = [&] {
    if (--left > 0) loop_->Read(fd_.get(), std::span(&buffer, 1), 0, op);
  };
  loop_->Read(fd_.get(), std::span(&buffer, 1), 0, op);
  loop_->RunUntil([&left] { return left == 0; });
}

TEST_P(IoLoopTest, CallsBackForEventsOfOtherThreads) {
  const UniqueFd event = Event();
  const UniqueFd answer = Event();
  int calls = 0;
  const auto watch = loop_->WatchEvent(event.get(), [&] {
    uint64_t value = 0;
    EXPECT_EQ(::read(event.get(), &value, sizeof value), -1) << "the loop reads it empty";
    ++calls;
    Signal(answer.get());
  });
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) {
      Signal(event.get());
      uint64_t value = 0;
      while (::read(answer.get(), &value, sizeof value) != sizeof value) std::this_thread::yield();
    }
  });
  loop_->RunUntil([&calls] { return calls == 100; });
  other.join();
}

TEST_P(IoLoopTest, WatchesDoorbells) {
  const UniqueFd event = Event();
  const UniqueFd answer = Event();
  int calls = 0;
  Signal(event.get());  // before anybody looks
  const auto watch = loop_->WatchDoorbell(event.get(), [&] {
    ++calls;
    Signal(answer.get());
  });
  const auto await_answer = [&] {
    uint64_t value = 0;
    while (::read(answer.get(), &value, sizeof value) != sizeof value) std::this_thread::yield();
  };
  std::thread other([&] {
    await_answer();
    for (int i = 0; i < 100; ++i) {
      Signal(event.get());
      await_answer();
    }
  });
  loop_->RunUntil([&calls] { return calls == 101; });
  other.join();
}

TEST_P(IoLoopTest, WatchesFiles) {
  const TestFolder folder;
  const UniqueFd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(inotify.get(), folder.path().c_str(), IN_CREATE), 0);
  int calls = 0;
  const auto watch = loop_->WatchEvent(inotify.get(), [&calls] { ++calls; });
  // More events than are read at once.
  for (int i = 0; i < 500; ++i) folder.Write(std::to_string(i), {});
  loop_->RunUntil([&calls] { return calls != 0; });
  std::array<uint8_t, 4096> events{};
  EXPECT_EQ(::read(inotify.get(), events.data(), events.size()), -1) << "the loop reads it empty";
  const int before = calls;
  folder.Write("another", {});
  loop_->RunUntil([&] { return calls > before; });
}

TEST_P(IoLoopTest, AWatchMayEndInItsOwnCallOrInAnothers) {
  const UniqueFd first = Event();
  const UniqueFd second = Event();
  int calls = 0;
  std::unique_ptr<IoLoop::Watch> one;
  std::unique_ptr<IoLoop::Watch> two;
  const auto end_both = [&] {
    ++calls;
    one.reset();
    two.reset();
  };
  one = loop_->WatchEvent(first.get(), end_both);
  two = loop_->WatchEvent(second.get(), end_both);
  Signal(first.get());
  Signal(second.get());
  loop_->RunUntil([&calls] { return calls != 0; });
  // What was under way of them runs dry.
  int turns = 0;
  for (int i = 0; i < 5; ++i) loop_->Post([&turns] { ++turns; });
  loop_->RunUntil([&turns] { return turns == 5; });
  Op op;
  loop_->RunBlocking([] { return 0; }, op);
  Wait(op);
  EXPECT_EQ(calls, 1);
}

TEST_P(IoLoopTest, DescriptorsMayBeClosedRightAfterTheirWatch) {
  for (int i = 0; i < 100; ++i) {
    UniqueFd event = Event();
    auto watch = loop_->WatchEvent(event.get(), [] {});
    if (i % 2 == 0) Signal(event.get());
    Op op;
    if (i % 3 == 0) loop_->RunBlocking([] { return 0; }, op);
    if (i % 3 == 0) Wait(op);
    watch.reset();
    event.Reset();
  }
}

TEST_P(IoLoopTest, MoreWatchesThanARingHasRoomFor) {
  constexpr int kCount = 600;
  std::vector<UniqueFd> events;
  std::vector<std::unique_ptr<IoLoop::Watch>> watches;
  int calls = 0;
  for (int i = 0; i < kCount; ++i) {
    events.push_back(Event());
    watches.push_back(loop_->WatchEvent(events.back().get(), [&calls] { ++calls; }));
    Signal(events.back().get());
  }
  loop_->RunUntil([&calls] { return calls == kCount; });
}

// The two ends of a socket that keeps packets apart.
std::array<UniqueFd, 2> Socketpair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()),
            0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

TEST_P(IoLoopTest, TellsOfReadinessOnceForEachTimeItIsAskedFor) {
  const auto [near, far] = Socketpair();
  int readable = 0;
  int writable = 0;
  const auto readiness = loop_->WatchReadiness(
      near.get(), [&readable] { ++readable; }, [&writable] { ++writable; });
  ASSERT_EQ(::send(far.get(), "x", 1, 0), 1);
  const auto turns = [this](int count) {
    int done = 0;
    for (int i = 0; i < count; ++i) {
      Op op;
      loop_->RunBlocking([] { return 0; }, op);
      Wait(op);
      ++done;
    }
    return done;
  };
  EXPECT_EQ(turns(5), 5);
  EXPECT_EQ(readable + writable, 0) << "nobody asked";
  readiness->AwaitReadable();
  readiness->AwaitReadable();
  EXPECT_EQ(readable, 0) << "called inside the call";
  loop_->RunUntil([&readable] { return readable != 0; });
  turns(5);
  EXPECT_EQ(readable, 1) << "once, although it is still readable";
  EXPECT_EQ(writable, 0);
  readiness->AwaitReadable();
  readiness->AwaitWritable();
  loop_->RunUntil([&] { return readable == 2 && writable == 1; });
}

TEST_P(IoLoopTest, DirectionsAreAwaitedApart) {
  const auto [near, far] = Socketpair();
  int readable = 0;
  int writable = 0;
  const auto readiness = loop_->WatchReadiness(
      near.get(), [&readable] { ++readable; }, [&writable] { ++writable; });
  readiness->AwaitReadable();  // before the loop has run
  readiness->AwaitWritable();
  loop_->RunUntil([&writable] { return writable == 1; });
  EXPECT_EQ(readable, 0);
  // Full: not writable until the other end reads.
  const std::string packet(4096, 'x');
  while (::send(near.get(), packet.data(), packet.size(), 0) > 0) {
  }
  ASSERT_EQ(errno, EAGAIN);
  readiness->AwaitWritable();
  ASSERT_EQ(::send(far.get(), "x", 1, 0), 1);
  loop_->RunUntil([&readable] { return readable == 1; });
  EXPECT_EQ(writable, 1);
  std::string into(packet.size(), ' ');
  while (::recv(far.get(), into.data(), into.size(), 0) > 0) {
  }
  loop_->RunUntil([&writable] { return writable == 2; });
  EXPECT_EQ(readable, 1);
}

TEST_P(IoLoopTest, TheEndIsNewsInBothDirections) {
  auto [near, far] = Socketpair();
  const std::string packet(4096, 'x');
  while (::send(near.get(), packet.data(), packet.size(), 0) > 0) {
  }
  int readable = 0;
  int writable = 0;
  const auto readiness = loop_->WatchReadiness(
      near.get(), [&readable] { ++readable; }, [&writable] { ++writable; });
  readiness->AwaitReadable();
  readiness->AwaitWritable();
  far.Reset();
  loop_->RunUntil([&] { return readable == 1 && writable == 1; });
}

TEST_P(IoLoopTest, ReadinessMayBeAskedForAndEndInItsOwnCall) {
  const auto [near, far] = Socketpair();
  ASSERT_EQ(::send(far.get(), "x", 1, 0), 1);
  int calls = 0;
  std::unique_ptr<IoLoop::Readiness> readiness;
  const auto on_ready = [&] {
    if (++calls < 100) {
      readiness->AwaitReadable();
      readiness->AwaitWritable();
    } else {
      readiness.reset();
    }
  };
  readiness = loop_->WatchReadiness(near.get(), on_ready, on_ready);
  readiness->AwaitReadable();
  loop_->RunUntil([&readiness] { return readiness == nullptr; });
  Op op;
  loop_->RunBlocking([] { return 0; }, op);
  Wait(op);
  EXPECT_EQ(calls, 100);
}

TEST_P(IoLoopTest, DescriptorsAreReallyClosedAfterTheirReadiness) {
  for (int i = 0; i < 100; ++i) {
    auto [near, far] = Socketpair();
    auto readiness = loop_->WatchReadiness(
        near.get(), [] {}, [] {});
    if (i % 4 != 0) readiness->AwaitReadable();
    if (i % 4 == 2) readiness->AwaitWritable();
    if (i % 3 != 0) {
      Op op;
      loop_->RunBlocking([] { return 0; }, op);
      Wait(op);
    }
    if (i % 5 == 0) {
      ASSERT_EQ(::send(far.get(), "x", 1, 0), 1);
    }
    readiness.reset();
    near.Reset();
    char byte = 0;
    const ssize_t result = ::recv(far.get(), &byte, 1, 0);
    ASSERT_TRUE(result == 0 || (result < 0 && errno == ECONNRESET)) << i << " " << errno;
  }
}

TEST_P(IoLoopTest, WatchesTimers) {
  const UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  int calls = 0;
  const auto watch = loop_->WatchEvent(timer.get(), [&calls] { ++calls; });
  for (int i = 1; i <= 3; ++i) {
    itimerspec when{};
    when.it_value.tv_nsec = 1;
    ASSERT_EQ(::timerfd_settime(timer.get(), 0, &when, nullptr), 0);
    loop_->RunUntil([&] { return calls == i; });
  }
}

TEST_P(IoLoopTest, PostedTasksRunInOrder) {
  constexpr int kTasks = 1000;
  std::array<std::vector<int>, 3> seen;
  std::vector<std::thread> threads;
  size_t total = 0;
  for (std::vector<int>& mine : seen) {
    threads.emplace_back([&] {
      for (int i = 0; i < kTasks; ++i) {
        loop_->Post([&mine, &total, i] {
          mine.push_back(i);
          ++total;
        });
      }
    });
  }
  loop_->RunUntil([&] { return total == seen.size() * kTasks; });
  for (std::thread& thread : threads) thread.join();
  std::vector<int> expected(kTasks);
  std::iota(expected.begin(), expected.end(), 0);
  for (const std::vector<int>& mine : seen) EXPECT_EQ(mine, expected);
}

// Work that never ends mustn't keep the rest from its turn.
TEST_P(IoLoopTest, EventsAndTasksGetTheirTurnBetweenTransfers) {
  ASSERT_EQ(Write("x", 0), 1);
  const UniqueFd event = Event();
  bool called = false;
  bool posted = false;
  const auto watch = loop_->WatchEvent(event.get(), [&called] { called = true; });
  std::array<char, 1> byte{};
  const iovec buffer = {byte.data(), 1};
  Op op;
  bool idle = false;
  op.then = [&] {
    idle = called && posted;
    if (!idle) loop_->Read(fd_.get(), std::span(&buffer, 1), 0, op);
  };
  loop_->Read(fd_.get(), std::span(&buffer, 1), 0, op);
  loop_->RunUntil([&op] { return op.result.has_value(); });
  Signal(event.get());
  loop_->Post([&posted] { posted = true; });
  loop_->RunUntil([&idle] { return idle; });
}

TEST_P(IoLoopTest, AThreadOfItsOwn) {
  auto thread = IoThread::Create("io-test", {.engine = GetParam()});
  ASSERT_TRUE(thread.ok()) << thread.status();
  std::array<char, 16> name{};
  (*thread)->loop().PostAndWait(
      [&name] { ::pthread_getname_np(::pthread_self(), name.data(), name.size()); });
  EXPECT_STREQ(name.data(), "io-test");
  // It ends also while it sleeps with watches once armed.
  const UniqueFd event = Event();
  std::unique_ptr<IoLoop::Watch> watch;
  IoLoop& loop = (*thread)->loop();
  loop.PostAndWait([&] { watch = loop.WatchEvent(event.get(), [] {}); });
  loop.PostAndWait([&] { watch.reset(); });
}

INSTANTIATE_TEST_SUITE_P(Engines, IoLoopTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

// As a system-call filter or a sysctl would have it.
TEST(IoLoopEngineTest, AHostWithoutIoUringGetsThePool) {
  std::thread([] {
    std::array<sock_filter, 4> filter = {
        sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program = {.len = filter.size(), .filter = filter.data()};
    ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);  // this thread only
    EXPECT_TRUE(
        absl::IsFailedPrecondition(IoLoop::Create({.engine = IoLoop::Engine::kUring}).status()));
    const auto loop = IoLoop::Create();
    ASSERT_TRUE(loop.ok()) << loop.status();
    EXPECT_EQ((*loop)->engine(), IoLoop::Engine::kThreadPool);
  }).join();
}

}  // namespace
}  // namespace bothy
