// ServingRounds: goes on with a queue in the next round of the loop, so that a driver that never
// stops lets others have their turn.
//
//   if (taken == kChainsPerRound) return rounds_.Add(index);
//
// On the loop's thread, all of it. It may end while rounds are posted: they do nothing then.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "support/check.h"
#include "support/io_loop.h"

namespace bothy::virtio {

class ServingRounds {
 public:
  // `loop` outlives it. `serve` is called once a round for each queue that was added.
  ServingRounds(IoLoop& loop, std::function<void(uint16_t queue)> serve)
      : loop_(loop), state_(std::make_shared<State>()) {
    state_->serve = std::move(serve);
  }
  ~ServingRounds() { state_->serve = nullptr; }
  ServingRounds(const ServingRounds&) = delete;
  ServingRounds& operator=(const ServingRounds&) = delete;

  // Of queues 0..63.
  void Add(uint16_t queue) {
    CHECK(queue < 64);
    const uint64_t bit = uint64_t{1} << queue;
    if ((state_->posted & bit) != 0) return;
    state_->posted |= bit;
    loop_.Post([state = state_, queue, bit] {
      state->posted &= ~bit;
      if (state->serve != nullptr) state->serve(queue);
    });
  }

 private:
  struct State {
    std::function<void(uint16_t)> serve;
    uint64_t posted = 0;  // queues
  };
  IoLoop& loop_;
  const std::shared_ptr<State> state_;
};

}  // namespace bothy::virtio
