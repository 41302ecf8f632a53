// IoLoop: one I/O thread's event loop: file operations, event descriptors, readiness of sockets and
// taps, posted functions.
//
// Everything of one loop happens on one thread, the one inside Run or RunUntil, so what hangs off
// it (a disk, a device's queues) needs no locks. Two engines with the same behaviour: io_uring,
// where the loop sleeps in the ring and one system call hands over all that was begun since, and,
// where the host forbids io_uring, a pool of threads that make plain system calls. With both, what
// the page cache can do at once the loop's thread does itself (direct_transfers.h says when). Only
// Post and Stop may be called from other threads.
//
// EventLoop is for what speaks a protocol (Asio's sockets and timers); an IoLoop is for the data
// path: files, eventfds, and descriptors whose owner makes the system calls itself.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "support/status.h"

namespace bothy {

class IoLoop {
 public:
  enum class Engine : uint8_t { kAuto, kUring, kThreadPool };
  struct Options {
    Engine engine = Engine::kAuto;  // kAuto: io_uring where the host has it, else the pool
    uint32_t pool_threads = 4;      // of kThreadPool, and of what io_uring can't do
  };

  // A file operation under way. Its owner keeps it, and the buffers, where they are until Complete.
  class Operation {
   public:
    virtual ~Operation() = default;
    // `result` is what the system call returned: bytes or 0, or -errno. Short transfers are
    // possible. On the loop's thread; never from inside the call that began the operation.
    virtual void Complete(int64_t result) = 0;
  };

  // A descriptor that is being watched; destroying it ends that, on the loop's thread only.
  class Watch {
   public:
    virtual ~Watch() = default;
  };

  // A descriptor that doesn't block, and whose owner wants to know when to try again. Destroying it
  // ends that, on the loop's thread only; the descriptor may be closed right after.
  class Readiness {
   public:
    virtual ~Readiness() = default;
    // Calls the function for that direction once, from the loop, when a read (a write) has
    // something to say: data (room), the end, an error. Rarely it comes for nothing. No effect
    // while that is awaited already.
    virtual void AwaitReadable() = 0;
    virtual void AwaitWritable() = 0;
  };

  // FailedPrecondition when `kUring` is asked for and the host hasn't it.
  static absl::StatusOr<std::unique_ptr<IoLoop>> Create(const Options& options);
  static absl::StatusOr<std::unique_ptr<IoLoop>> Create() { return Create(Options{}); }
  virtual ~IoLoop() = default;

  // preadv2, pwritev2, fsync or fdatasync, fallocate, ftruncate with the same meaning of every
  // argument. At most IOV_MAX buffers. -EAGAIN from io_uring means a page that can't be read: only
  // a call that blocks says why (RunBlocking).
  virtual void Read(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) = 0;
  virtual void Write(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) = 0;
  enum class Sync : uint8_t { kAll, kData };
  virtual void Fsync(int fd, Sync what, Operation& op) = 0;
  virtual void Fallocate(int fd, int mode, uint64_t offset, uint64_t length, Operation& op) = 0;
  // Any other call that may block (ftruncate, an ioctl), on a thread of the pool. `call` returns a
  // result as above.
  virtual void RunBlocking(std::function<int64_t()> call, Operation& op) = 0;

  // Calls `on_event` whenever the eventfd, timerfd or inotify descriptor `fd`, which must not
  // block, has something to read; the loop reads it empty first. `fd` outlives the watch.
  [[nodiscard]] virtual std::unique_ptr<Watch> WatchEvent(int fd,
                                                          std::function<void()> on_event) = 0;
  // The same of an eventfd whose count nobody asks for, and which may not be read at all: where the
  // loop is told of each write, that saves a system call for each. What the writer did before is
  // seen by what orders it itself, as the index of a virtqueue does.
  [[nodiscard]] virtual std::unique_ptr<Watch> WatchDoorbell(int eventfd,
                                                             std::function<void()> on_event) = 0;
  // Nothing is awaited yet. `fd` is something that poll(2) waits for, with one Readiness at a time.
  // The functions may be empty where that direction is never awaited; they may destroy the
  // Readiness.
  [[nodiscard]] virtual std::unique_ptr<Readiness> WatchReadiness(
      int fd, std::function<void()> on_readable, std::function<void()> on_writable) = 0;

  // Queues `task` for the loop's thread, in order of posting. Any thread.
  virtual void Post(std::function<void()> task) = 0;
  // Runs `task` on the loop's thread and returns when it has. Not on that thread, nor when nothing
  // runs the loop.
  void PostAndWait(const std::function<void()>& task);

  // Runs until Stop. What is under way stays under way.
  virtual void Run() = 0;
  // Runs until `done()`, which is asked whenever something has completed. The thread that first
  // runs the loop, with either of the two, is the loop's thread for good.
  virtual void RunUntil(const std::function<bool()>& done) = 0;
  virtual void Stop() = 0;

  [[nodiscard]] virtual Engine engine() const = 0;
};

// An IoLoop with a thread of its own, named `name`; the destructor stops it and joins.
class IoThread {
 public:
  static absl::StatusOr<std::unique_ptr<IoThread>> Create(const std::string& name,
                                                          const IoLoop::Options& options);
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  [[nodiscard]] IoLoop& loop() { return *loop_; }

 private:
  explicit IoThread(std::unique_ptr<IoLoop> loop) : loop_(std::move(loop)) {}
  std::unique_ptr<IoLoop> loop_;
  std::thread thread_;
};

}  // namespace bothy
