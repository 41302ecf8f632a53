// DiskProgress: how far a long operation on a disk image is.
//
// Nothing for two seconds; then, on a terminal, a bar that is drawn over itself and gone at the
// end, and elsewhere a line every tenth of the way.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace bothy::bothyctl {

class DiskProgress {
 public:
  using Clock = std::chrono::steady_clock;

  // `what` is the verb: "convert". On standard error.
  explicit DiskProgress(std::string what);
  ~DiskProgress() { Clear(); }
  DiskProgress(const DiskProgress&) = delete;
  DiskProgress& operator=(const DiskProgress&) = delete;

  // Called as often as you like.
  void Update(uint64_t done, uint64_t total);
  // Takes the bar away, before anything else is printed.
  void Clear();

  // "convert [#########           ] 45 %, 1.2 GiB of 2.7 GiB, 3 s left", no wider than `columns`.
  static std::string Bar(const std::string& what, uint64_t done, uint64_t total,
                         std::chrono::duration<double> elapsed, size_t columns);

 private:
  const std::string what_;
  const bool terminal_;
  const Clock::time_point begin_;
  Clock::time_point next_;
  uint64_t next_tenth_ = 1;
  bool drawn_ = false;
};

}  // namespace bothy::bothyctl
