// IoEpochs: tells when all I/O that was under way at some moment is over, so that space which was
// taken from a block isn't used again while a late request could still read or write it.
#pragma once

#include <cstdint>
#include <deque>

#include "support/check.h"

namespace bothy::disk::vhdx {

class IoEpochs {
 public:
  IoEpochs() : counts_(1) {}

  // Around each request that touches blocks' space.
  [[nodiscard]] uint64_t Enter() {
    ++counts_.back();
    return first_ + counts_.size() - 1;
  }
  void Leave(uint64_t epoch) {
    uint64_t& count = counts_[epoch - first_];
    CHECK(count > 0);
    if (--count == 0) ForgetOver();
  }

  // What entered before this call is over once over(result).
  [[nodiscard]] uint64_t Next() {
    counts_.push_back(0);
    ForgetOver();
    return first_ + counts_.size() - 2;
  }
  [[nodiscard]] bool over(uint64_t epoch) const { return epoch < first_; }

 private:
  void ForgetOver() {
    while (counts_.size() > 1 && counts_.front() == 0) {
      counts_.pop_front();
      ++first_;
    }
  }
  uint64_t first_ = 0;
  std::deque<uint64_t> counts_;
};

// One piece of I/O within its epoch.
class InEpoch {
 public:
  explicit InEpoch(IoEpochs& epochs) : epochs_(epochs), epoch_(epochs.Enter()) {}
  InEpoch(const InEpoch&) = delete;
  InEpoch& operator=(const InEpoch&) = delete;
  ~InEpoch() { epochs_.Leave(epoch_); }

 private:
  IoEpochs& epochs_;
  const uint64_t epoch_;
};

}  // namespace bothy::disk::vhdx
