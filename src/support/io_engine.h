// IoEngine: what the two engines of IoLoop have in common: posted tasks, calls that block, and
// transfers that the loop's own thread makes. Only the engines and io_loop.cc include this.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "support/blocking_pool.h"
#include "support/direct_transfers.h"
#include "support/file_call.h"
#include "support/io_loop.h"
#include "support/posted_tasks.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy {

// FailedPrecondition when the host hasn't io_uring or forbids it.
absl::StatusOr<std::unique_ptr<IoLoop>> CreateUringLoop(const IoLoop::Options& options);
absl::StatusOr<std::unique_ptr<IoLoop>> CreateThreadPoolLoop(const IoLoop::Options& options);

class IoEngine : public IoLoop {
 public:
  void Read(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) final;
  void Write(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) final;
  void Fsync(int fd, Sync what, Operation& op) final;
  void Fallocate(int fd, int mode, uint64_t offset, uint64_t length, Operation& op) final;
  void RunBlocking(std::function<int64_t()> call, Operation& op) final;
  void Post(std::function<void()> task) final { posted_.Post(std::move(task)); }
  void Run() final;
  void RunUntil(const std::function<bool()>& done) final;
  void Stop() final;

 protected:
  // `wake` is the eventfd that Turn is woken up by.
  IoEngine(const Options& options, UniqueFd wake)
      : posted_(std::move(wake)), pool_(options.pool_threads) {}
  ~IoEngine() override;

  // Begins `call` the engine's own way; it ends in Finish, in a later Turn or posted task.
  virtual void Begin(const FileCall& call) = 0;
  // Sees to it that what was begun is under way, before the loop's thread does something itself.
  virtual void HandOver() {}
  // Before the first turn, on the thread that all of them are made on.
  virtual void BeforeFirstTurn() {}
  // Completes what can be; if `sleep`, not before there is something.
  virtual void Turn(bool sleep) = 0;

  void Finish(Operation& op, int64_t result) {
    --in_flight_;
    op.Complete(result);
  }
  [[nodiscard]] PostedTasks& posted() { return posted_; }

  // Reads what WatchEvent watches empty; false when it was.
  static bool DrainEvents(int fd);
  // Begins it on a thread of the pool.
  void BeginOnPool(const FileCall& call);

 private:
  void Start(FileCall call);
  void RunDirect();

  size_t in_flight_ = 0;  // begun the engine's way, or blocking
  bool begun_ = false;    // since the last HandOver
  DirectTransfers direct_;
  bool turned_ = false;
  std::atomic<bool> stopped_{false};
  PostedTasks posted_;
  BlockingPool pool_;  // its threads post
};

}  // namespace bothy
