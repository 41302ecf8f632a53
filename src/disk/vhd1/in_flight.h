// InFlightList: the requests that are under way, in the order they began, so that room in the file
// isn't used again while an older request may still be reading or writing there.
#pragma once

#include <cstdint>

namespace bothy::disk::vhd1 {

class InFlightList {
 public:
  struct Entry {
    Entry* previous = nullptr;
    Entry* next = nullptr;
    uint64_t number = 0;
  };
  // For a coroutine's own frame.
  class Scope {
   public:
    explicit Scope(InFlightList& list) : list_(list) { list_.Enter(entry_); }
    ~Scope() { list_.Leave(entry_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    InFlightList& list_;
    Entry entry_;
  };

  void Enter(Entry& entry) {
    entry = {.previous = last_, .next = nullptr, .number = next_number_++};
    (last_ == nullptr ? first_ : last_->next) = &entry;
    last_ = &entry;
  }
  void Leave(Entry& entry) {
    (entry.previous == nullptr ? first_ : entry.previous->next) = entry.next;
    (entry.next == nullptr ? last_ : entry.next->previous) = entry.previous;
  }
  // The number of the next one to begin.
  [[nodiscard]] uint64_t next_number() const { return next_number_; }
  // Whether all that began before `number` was the next one have ended.
  [[nodiscard]] bool EndedBefore(uint64_t number) const {
    return first_ == nullptr || first_->number >= number;
  }

 private:
  Entry* first_ = nullptr;
  Entry* last_ = nullptr;
  uint64_t next_number_ = 0;
};

}  // namespace bothy::disk::vhd1
