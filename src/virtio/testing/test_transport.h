// Transports of devices under test. What a test looks at it adds itself.
#pragma once

#include <cstdint>

#include "support/check.h"
#include "virtio/device.h"

namespace bothy::virtio::testing {

// Nobody looks at the configuration, and the host's kernel serves no queues.
class TestTransport : public Transport {
 public:
  void ConfigChanged() override {}
  int LendDoorbell(uint16_t /*queue*/) override { return -1; }
  void ReturnDoorbell(uint16_t /*queue*/) override {}
  absl::StatusOr<int> InterruptEvent(uint16_t /*queue*/) override { return -1; }
};

// For fuzzers: a device may say what it likes, of the first `queues` queues.
class QuietTransport final : public TestTransport {
 public:
  explicit QuietTransport(uint16_t queues) : queues_(queues) {}
  void InterruptQueue(uint16_t queue) override { CHECK(queue < queues_); }
  void NeedsReset(const absl::Status& reason) override { CHECK(!reason.ok()); }

 private:
  const uint16_t queues_;
};

}  // namespace bothy::virtio::testing
