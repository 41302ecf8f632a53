// Request: one asynchronous operation on what has bytes: a Storage or a Disk.
//
// The caller owns it and its buffers and leaves them alone from Submit to Complete. Offsets and
// lengths are bytes. Requests of one object may complete in any order; two that overlap and are in
// flight together leave the bytes of either, as on a real disk.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <optional>
#include <span>

#include "support/status.h"
#include "support/task.h"

namespace bothy::disk {

enum class Operation : uint8_t {
  kRead,
  kWrite,
  kFlush,        // what completed before it was submitted survives a crash; no offset, no length
  kDiscard,      // the bytes are no longer needed: afterwards they read as anything
  kWriteZeroes,  // afterwards they read as zero
};

class Request {
 public:
  Request() = default;
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  virtual ~Request() = default;

  Operation operation = Operation::kRead;
  // kWriteZeroes: whether the space may be given back to the host.
  bool may_deallocate = true;
  uint64_t offset = 0;
  uint64_t length = 0;  // kRead, kWrite: the sum of the buffers' lengths
  std::span<const iovec> buffers;

  // The end, on the thread of the loop; may come from inside Submit. The request may be freed in
  // it.
  virtual void Complete(absl::Status status) = 0;
};

// Awaits one request: `absl::Status s = co_await Submit(target, Operation::kFlush);`
template <typename Target>
class SubmitAwaiter final : private Request {
 public:
  SubmitAwaiter(Target& target, Operation op, uint64_t at, uint64_t size,
                std::span<const iovec> data, bool deallocate = true)
      : target_(target) {
    operation = op;
    offset = at;
    length = size;
    buffers = data;
    may_deallocate = deallocate;
  }
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  // False, and no suspension, when it completed at once: recursion never grows with the number of
  // requests.
  bool await_suspend(std::coroutine_handle<> waiting) {
    target_.Submit(*this);
    if (status_.has_value()) return false;
    waiting_ = waiting;
    return true;
  }
  absl::Status await_resume() { return *std::move(status_); }

 private:
  void Complete(absl::Status status) override {
    status_ = std::move(status);
    if (waiting_) waiting_.resume();
  }
  Target& target_;
  std::optional<absl::Status> status_;
  std::coroutine_handle<> waiting_;
};

template <typename Target>
Task<absl::Status> ReadAt(Target& target, uint64_t offset, std::span<uint8_t> bytes) {
  const iovec buffer = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  co_return co_await SubmitAwaiter<Target>(target, Operation::kRead, offset, bytes.size(),
                                           std::span<const iovec>(&buffer, 1));
}
template <typename Target>
Task<absl::Status> WriteAt(Target& target, uint64_t offset, std::span<const uint8_t> bytes) {
  const iovec buffer = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
  co_return co_await SubmitAwaiter<Target>(target, Operation::kWrite, offset, bytes.size(),
                                           std::span<const iovec>(&buffer, 1));
}
template <typename Target>
Task<absl::Status> Flush(Target& target) {
  co_return co_await SubmitAwaiter<Target>(target, Operation::kFlush, 0, 0, {});
}
template <typename Target>
Task<absl::Status> Discard(Target& target, uint64_t offset, uint64_t length) {
  co_return co_await SubmitAwaiter<Target>(target, Operation::kDiscard, offset, length, {});
}
template <typename Target>
Task<absl::Status> WriteZeroes(Target& target, uint64_t offset, uint64_t length) {
  co_return co_await SubmitAwaiter<Target>(target, Operation::kWriteZeroes, offset, length, {});
}

}  // namespace bothy::disk
