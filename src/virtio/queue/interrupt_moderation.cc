#include "virtio/queue/interrupt_moderation.h"

#include <algorithm>

namespace bothy::virtio {
namespace {

constexpr int64_t kWeight = 8;  // of what was, against what is, in the moving average

}  // namespace

void InterruptModeration::OnTaken(int64_t now) {
  // A pause says no more about the pace than that there is none.
  const int64_t interval = std::min(now - last_taken_, 2 * kMostPatience);
  interval_ += (interval - interval_) / kWeight;
  last_taken_ = now;
  last_progress_ = now;
}

void InterruptModeration::OnCompleted(int64_t now) {
  if (gathered_++ == 0) first_gathered_ = now;
  last_progress_ = now;
}

InterruptModeration::Decision InterruptModeration::Interrupt() {
  gathered_ = 0;
  if (until_probe_ == 0) until_probe_ = kProbeInterval;
  --until_probe_;
  return Decision::kInterrupt;
}

InterruptModeration::Decision InterruptModeration::Decide(int64_t now) {
  if (gathered_ == 0) return Decision::kNothing;
  const bool probes = until_probe_ == 0;
  const bool enough = gathered_ >= std::max<uint32_t>(1, depth_ / kGathered);
  if (enough && !probes) return Interrupt();
  // One that comes late is as good as none, but a pace slower than any patience isn't worth a try.
  const int64_t patience = std::min(interval_ + interval_ / 2, kMostPatience);
  const bool in_time = now - first_gathered_ < (probes ? kLongestProbe : kLongestHold);
  if (in_time && now - last_progress_ < patience) return Decision::kWait;
  // A hiccup of the driver's isn't a new habit.
  depth_ = probes ? gathered_ : std::max(gathered_, depth_ / 2);
  return Interrupt();
}

}  // namespace bothy::virtio
