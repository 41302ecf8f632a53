// Gather: several requests under way at once, awaited together.
//
//   Gather gather;
//   gather.Add(storage, Operation::kWrite, offset, buffers);
//   absl::Status status = co_await gather.Wait();
#pragma once

#include <coroutine>
#include <deque>
#include <utility>
#include <vector>

#include "disk/request.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

class Gather {
 public:
  Gather() = default;
  Gather(const Gather&) = delete;
  Gather& operator=(const Gather&) = delete;
  ~Gather() { CHECK(under_way_ == 0); }

  // Submits at once. What the buffers point to stays until Wait is over.
  template <typename Target>
  void Add(Target& target, Operation operation, uint64_t offset, uint64_t length,
           std::vector<iovec> buffers, bool may_deallocate = true) {
    Part& part = parts_.emplace_back(*this);
    part.operation = operation;
    part.offset = offset;
    part.length = length;
    part.may_deallocate = may_deallocate;
    part.own_buffers = std::move(buffers);
    part.buffers = part.own_buffers;
    ++under_way_;
    target.Submit(part);
  }

  // Something else that ends with Done.
  void AddTask() { ++under_way_; }
  void Done(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    if (--under_way_ == 0 && waiting_) std::exchange(waiting_, nullptr).resume();
  }

  struct Awaiter {
    Gather& gather;
    [[nodiscard]] bool await_ready() const noexcept { return gather.under_way_ == 0; }
    void await_suspend(std::coroutine_handle<> waiting) { gather.waiting_ = waiting; }
    [[nodiscard]] absl::Status await_resume() { return gather.status_; }
  };
  // The first error. The status of the part that was added as number i is status_of(i).
  [[nodiscard]] Awaiter Wait() { return Awaiter{*this}; }
  [[nodiscard]] const absl::Status& status_of(size_t part) const { return parts_[part].status; }

 private:
  struct Part final : Request {
    explicit Part(Gather& owner) : gather(owner) {}
    void Complete(absl::Status result) override {
      status = result;
      gather.Done(std::move(result));
    }
    Gather& gather;
    std::vector<iovec> own_buffers;
    absl::Status status;
  };

  std::deque<Part> parts_;
  size_t under_way_ = 0;
  absl::Status status_;
  std::coroutine_handle<> waiting_;
};

}  // namespace bothy::disk::vhdx
