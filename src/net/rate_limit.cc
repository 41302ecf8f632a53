#include "net/rate_limit.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace bothy::net {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr uint64_t kBitsPerByte = 8;
// Far beyond any wire, and far from any overflow.
constexpr uint64_t kLargestRate = uint64_t{1} << 50;

int64_t BurstBits(uint64_t bits_per_second) {
  constexpr uint64_t kPerSecond = kNsPerSecond / RateLimit::kBurstNs;
  return static_cast<int64_t>(
      std::max(bits_per_second / kPerSecond, RateLimit::kLeastBurstBytes * kBitsPerByte));
}

}  // namespace

RateLimit::RateLimit(uint64_t bits_per_second, Clock clock)
    : bits_per_second_(std::min(bits_per_second, kLargestRate)),
      burst_bits_(BurstBits(bits_per_second_)),
      clock_(std::move(clock)),
      bits_(burst_bits_),
      refilled_at_(clock_()) {}

void RateLimit::Refill() {
  const uint64_t now = clock_();
  const auto earned =
      static_cast<unsigned __int128>(now - refilled_at_) * bits_per_second_ + remainder_;
  refilled_at_ = now;
  const auto missing = static_cast<uint64_t>(burst_bits_ - bits_);
  const unsigned __int128 bits = earned / kNsPerSecond;
  if (bits >= missing) {
    bits_ = burst_bits_;
    remainder_ = 0;
  } else {
    bits_ += static_cast<int64_t>(bits);
    remainder_ = static_cast<uint64_t>(earned % kNsPerSecond);
  }
}

bool RateLimit::Ready() { return unlimited() || (Refill(), bits_ > 0); }

void RateLimit::Spend(uint64_t bytes) {
  if (unlimited()) return;
  // No more debt than can be told apart from for ever.
  constexpr int64_t kMostDebt = std::numeric_limits<int64_t>::max() / 4;
  const auto bits =
      static_cast<int64_t>(std::min<uint64_t>(bytes, kMostDebt / kBitsPerByte) * kBitsPerByte);
  bits_ = std::max(bits_ - bits, -kMostDebt);
}

uint64_t RateLimit::WaitNs() {
  if (Ready()) return 0;
  // One bit is enough.
  const auto missing = static_cast<uint64_t>(1 - bits_);
  const auto wait =
      (static_cast<unsigned __int128>(missing) * kNsPerSecond - remainder_ + bits_per_second_ - 1) /
      bits_per_second_;
  return static_cast<uint64_t>(
      std::min<unsigned __int128>(wait, std::numeric_limits<int64_t>::max()));
}

}  // namespace bothy::net
