// InterruptModeration: when the driver hears of what a queue has completed.
//
// An interrupt costs the guest the same whether it tells of one request or of twenty. A driver that
// waits for its only request wants it at once; of a driver with many under way, the next ones are
// worth a moment's patience. Nothing in a ring says which it is: a device that answers from the
// page cache is done with a request before the next one is put there. So now and then it waits and
// sees how many follow (a probe), takes that for the depth, and gathers a part of it before each
// interrupt from then on. Whenever fewer than expected came in time, the depth is what came.
//
// Patience for the next one is measured in the time between requests lately, and no interrupt is
// held back longer than kLongestHold, that of a probe kLongestProbe: a probe must see all that the
// driver has to put there, however slow it is, but comes seldom. It only looks at the clock when it
// is asked: its owner asks again in every round of its loop while the answer is kWait, and doesn't
// want the doorbell rung meanwhile.
//
// Times are of a steady clock, in ns. One thread.
#pragma once

#include <cstdint>

namespace bothy::virtio {

class InterruptModeration {
 public:
  static constexpr int64_t kMostPatience = 500'000;     // ns, for the next request
  static constexpr int64_t kLongestHold = 2'000'000;    // ns, of an interrupt
  static constexpr int64_t kLongestProbe = 12'000'000;  // ns
  // Interrupts from one probe to the next.
  static constexpr uint32_t kProbeInterval = 64;
  // Of the depth, what is gathered: a fourth, so that the driver always has others under way.
  static constexpr uint32_t kGathered = 4;

  // A request was taken off the queue.
  void OnTaken(int64_t now);
  // One was given back.
  void OnCompleted(int64_t now);

  enum class Decision : uint8_t {
    kNothing,    // the driver has heard of everything
    kInterrupt,  // now; counts as done
    kWait,
  };
  [[nodiscard]] Decision Decide(int64_t now);
  // The interrupt comes now whatever is to be expected: the queue comes to rest.
  void Hurry() { gathered_ = 0; }

  // How many requests the driver seems to have under way at once.
  [[nodiscard]] uint32_t depth() const { return depth_; }
  [[nodiscard]] bool gathering() const { return gathered_ != 0; }

 private:
  Decision Interrupt();

  uint32_t depth_ = 1;
  uint32_t gathered_ = 0;     // completed, and the driver doesn't know
  uint32_t until_probe_ = 8;  // interrupts; the first one comes early
  int64_t last_taken_ = 0;
  int64_t first_gathered_ = 0;        // when the first of those was
  int64_t last_progress_ = 0;         // when one was last taken or given back
  int64_t interval_ = kMostPatience;  // between requests, a moving average
};

}  // namespace bothy::virtio
