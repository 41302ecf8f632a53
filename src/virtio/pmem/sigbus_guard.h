// SigbusGuard: keeps the process alive when one of its threads accesses mapped pages that the host
// can't provide: a file that was truncated, a file system that is full, a medium's error.
//
// The page is replaced by an anonymous one, which reads as zero, and the access goes on. Accesses
// that the kernel makes for a system call fail with EFAULT instead, and never come here.
//
// SIGBUS elsewhere goes where it went before the first guard was made. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "support/status.h"

namespace bothy::virtio {

class SigbusGuard {
 public:
  // Guards `range`, whole pages. ResourceExhausted when there are too many guards (kMaxGuards).
  static absl::StatusOr<std::unique_ptr<SigbusGuard>> Create(std::span<uint8_t> range);
  // The range is still mapped: nobody may access it while its guard goes.
  ~SigbusGuard();
  SigbusGuard(const SigbusGuard&) = delete;
  SigbusGuard& operator=(const SigbusGuard&) = delete;

  // How many pages were replaced.
  [[nodiscard]] uint64_t replaced_pages() const;

  static constexpr size_t kMaxGuards = 256;

 private:
  explicit SigbusGuard(size_t slot) : slot_(slot) {}
  const size_t slot_;
};

}  // namespace bothy::virtio
