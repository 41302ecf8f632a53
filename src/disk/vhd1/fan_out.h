// FanOut: several requests in flight for one coroutine.
//
//   FanOut parts;
//   parts.Submit(storage, Operation::kRead, offset, Slice(buffers, 0, 4096));
//   co_await parts.AtMost(0);          // all of them
//   co_return parts.status();          // the first error
//
// The coroutine must not end while any is in flight.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "disk/request.h"
#include "support/check.h"

namespace bothy::disk::vhd1 {

class FanOut {
 public:
  FanOut() = default;
  FanOut(const FanOut&) = delete;
  FanOut& operator=(const FanOut&) = delete;
  ~FanOut() { CHECK(in_flight_ == 0); }

  // A read or a write; the length is that of `buffers`.
  template <typename Target>
  void Submit(Target& target, Operation operation, uint64_t offset, std::vector<iovec> buffers) {
    Part& part = Take();
    part.iovecs = std::move(buffers);
    part.length = 0;
    for (const iovec& buffer : part.iovecs) part.length += buffer.iov_len;
    Go(target, part, operation, offset);
  }
  // A write of bytes that are kept here until it is done.
  template <typename Target>
  void Write(Target& target, uint64_t offset, std::vector<uint8_t> bytes) {
    Part& part = Take();
    part.bytes = std::move(bytes);
    part.iovecs.assign(1, {.iov_base = part.bytes.data(), .iov_len = part.bytes.size()});
    part.length = part.bytes.size();
    Go(target, part, Operation::kWrite, offset);
  }
  template <typename Target>
  void WriteZeroes(Target& target, uint64_t offset, uint64_t length, bool may_deallocate) {
    Part& part = Take();
    part.iovecs.clear();
    part.length = length;
    part.may_deallocate = may_deallocate;
    Go(target, part, Operation::kWriteZeroes, offset);
  }

  class Awaiter {
   public:
    Awaiter(FanOut& parts, size_t most) : parts_(parts), most_(most) {}
    [[nodiscard]] bool await_ready() const noexcept { return parts_.in_flight_ <= most_; }
    void await_suspend(std::coroutine_handle<> waiting) {
      parts_.waiting_ = waiting;
      parts_.most_ = most_;
    }
    void await_resume() const noexcept {}

   private:
    FanOut& parts_;
    size_t most_;
  };
  // Suspends until no more than `most` are in flight.
  [[nodiscard]] Awaiter AtMost(size_t most) { return {*this, most}; }

  // The first error so far.
  [[nodiscard]] const absl::Status& status() const { return status_; }

 private:
  struct Part final : Request {
    explicit Part(FanOut& owner) : parts(owner) {}
    void Complete(absl::Status status) override { parts.Done(*this, std::move(status)); }
    FanOut& parts;
    std::vector<iovec> iovecs;
    std::vector<uint8_t> bytes;
  };

  Part& Take() {
    if (unused_.empty()) return parts_.emplace_back(*this);
    Part* part = unused_.back();
    unused_.pop_back();
    return *part;
  }
  template <typename Target>
  void Go(Target& target, Part& part, Operation operation, uint64_t offset) {
    part.operation = operation;
    part.offset = offset;
    part.buffers = part.iovecs;
    ++in_flight_;
    target.Submit(part);
  }
  void Done(Part& part, absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    unused_.push_back(&part);
    --in_flight_;
    if (!waiting_ || in_flight_ > most_) return;
    // May end the coroutine, and with it this object.
    std::exchange(waiting_, nullptr).resume();
  }

  std::deque<Part> parts_;
  std::vector<Part*> unused_;
  size_t in_flight_ = 0;
  absl::Status status_;
  std::coroutine_handle<> waiting_;
  size_t most_ = 0;
};

}  // namespace bothy::disk::vhd1
