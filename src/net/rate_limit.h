// RateLimit: a token bucket, for bits per second.
//
// What is spent may exceed what is there: then nothing more goes until the debt is paid, so that
// frames of any length pass and the rate is kept exactly in the long run.
//
//   if (!limit.Ready()) return TryAgainIn(limit.WaitNs());
//   limit.Spend(Send(frame));
//
// Plain state, one thread. The clock is the caller's.
#pragma once

#include <cstdint>
#include <functional>

namespace bothy::net {

class RateLimit {
 public:
  // Nanoseconds that never go back.
  using Clock = std::function<uint64_t()>;
  // What passes at once after silence: this much time's worth, and at least two of the longest
  // frames, without which segmentation offload would be of no use.
  static constexpr uint64_t kBurstNs = 10'000'000;
  static constexpr uint64_t kLeastBurstBytes = 128 << 10;

  // `bits_per_second` 0: no limit.
  RateLimit(uint64_t bits_per_second, Clock clock);

  [[nodiscard]] uint64_t bits_per_second() const { return bits_per_second_; }
  [[nodiscard]] bool unlimited() const { return bits_per_second_ == 0; }
  // Whether a frame may pass now.
  [[nodiscard]] bool Ready();
  // One has.
  void Spend(uint64_t bytes);
  // Until Ready; 0 when it is.
  [[nodiscard]] uint64_t WaitNs();

 private:
  void Refill();

  const uint64_t bits_per_second_;
  const int64_t burst_bits_;
  const Clock clock_;
  int64_t bits_ = 0;  // negative: debt
  uint64_t refilled_at_ = 0;
  uint64_t remainder_ = 0;  // of a bit, in 1/10^9
};

}  // namespace bothy::net
