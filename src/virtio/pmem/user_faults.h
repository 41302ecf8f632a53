// UserFaults: userfaultfd(2) on a range of anonymous memory: who touches a page that isn't there,
// or stores to one that is protected, waits until it was dealt with.
//
// Faults of the kernel on behalf of this process count too: those of KVM for a guest, and of system
// calls that read or write the range.
//
// Threads: a thread of its own reads the faults and calls the handler. Everything else is for any
// thread, also the handler's; the order of operations on one page is the caller's to keep.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::virtio {

class UserFaults {
 public:
  // What is told of faults, on the fault thread, which must not touch pages that aren't there. The
  // thread that faulted waits until its page is woken, and then tries again; a fault may be told of
  // that has been dealt with meanwhile.
  class Handler {
   public:
    virtual ~Handler() = default;
    // The page at `offset` in the range isn't there.
    virtual void OnMissing(uint64_t offset, bool store) = 0;
    // A store to the page at `offset`, which is protected.
    virtual void OnProtected(uint64_t offset) = 0;
  };

  // For parts of `range`, which are registered one by one. `track_stores`: pages can be protected.
  // FailedPrecondition, with the remedy, when the host forbids it. `handler` outlives the object.
  static absl::StatusOr<std::unique_ptr<UserFaults>> Create(std::span<uint8_t> range,
                                                            bool track_stores,
                                                            const std::string& thread_name,
                                                            Handler& handler);
  // Ends the thread. Nobody may wait for a page: the range was mapped over, and woken.
  ~UserFaults();
  UserFaults(const UserFaults&) = delete;
  UserFaults& operator=(const UserFaults&) = delete;

  // From now on faults there are told of: whole pages of a private anonymous mapping. Mapping
  // something else over it ends that.
  [[nodiscard]] absl::Status Register(uint64_t offset, uint64_t length);

  // All offsets and lengths are multiples of a page. Nobody is woken but by Wake and Unprotect.
  // NotFound when part of the range is no longer registered: something else was mapped there.

  // Puts pages with these contents where none are; protected from the first, if so asked.
  [[nodiscard]] absl::Status Fill(uint64_t offset, std::span<const uint8_t> contents, bool protect);
  // The same with pages of zeroes, which take no memory until somebody stores. They can't be
  // protected from the first.
  [[nodiscard]] absl::Status FillZero(uint64_t offset, uint64_t length);
  // From its return on, every store to pages that are there is told of.
  [[nodiscard]] absl::Status Protect(uint64_t offset, uint64_t length);
  // Lets stores through, and wakes who waits.
  [[nodiscard]] absl::Status Unprotect(uint64_t offset, uint64_t length);
  void Wake(uint64_t offset, uint64_t length);

 private:
  UserFaults(std::span<uint8_t> range, bool track_stores, Handler& handler, UniqueFd faults,
             UniqueFd stop)
      : range_(range),
        track_stores_(track_stores),
        handler_(handler),
        faults_(std::move(faults)),
        stop_(std::move(stop)) {}
  void Run();
  void ReadFaults();
  [[nodiscard]] absl::Status ChangeProtection(uint64_t offset, uint64_t length, uint64_t mode);

  const std::span<uint8_t> range_;
  const bool track_stores_;
  Handler& handler_;
  const UniqueFd faults_;  // the userfaultfd
  const UniqueFd stop_;    // an eventfd, written when the thread shall end
  std::thread thread_;
};

}  // namespace bothy::virtio
