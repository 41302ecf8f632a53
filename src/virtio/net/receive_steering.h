// ReceiveSteering: which receive queue a frame goes to, as the driver has set it up for
// receive-side scaling (RSS; virtio 1.2, 5.1.6.5.7).
//
// Immutable: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "virtio/net/toeplitz_hash.h"

namespace bothy::virtio {

class ReceiveSteering {
 public:
  // What the device says of itself in its configuration (5.1.4): no less than it must.
  static constexpr size_t kMostKeyBytes = ToeplitzHash::kKeyBytes;
  static constexpr size_t kMostTableEntries = 128;

  // `config`: a struct virtio_net_rss_config. `receive_queues` says of each pair whether its
  // receive queue is there to be named. Nothing when the driver broke a rule of 5.1.6.5.7.2.
  [[nodiscard]] static std::optional<ReceiveSteering> Parse(
      std::span<const uint8_t> config, const std::vector<bool>& receive_queues);

  // The pair whose receive queue gets a frame that begins with `start`: of it up to
  // kFlowStartBytes.
  [[nodiscard]] uint16_t PairOf(std::span<const uint8_t> start) const;

  // Transmit queues that the driver may use: 1 to the number of pairs.
  [[nodiscard]] uint16_t transmit_queues() const { return transmit_queues_; }
  [[nodiscard]] uint32_t hash_types() const { return hash_types_; }
  [[nodiscard]] uint16_t unclassified() const { return unclassified_; }
  [[nodiscard]] const std::vector<uint16_t>& table() const { return table_; }

 private:
  ReceiveSteering(std::span<const uint8_t> key, uint32_t hash_types, uint16_t unclassified,
                  std::vector<uint16_t> table, uint16_t transmit_queues)
      : hash_(key),
        hash_types_(hash_types),
        unclassified_(unclassified),
        table_(std::move(table)),
        transmit_queues_(transmit_queues) {}

  ToeplitzHash hash_;
  uint32_t hash_types_;
  uint16_t unclassified_;        // a pair
  std::vector<uint16_t> table_;  // of pairs; a power of two of them
  uint16_t transmit_queues_;
};

}  // namespace bothy::virtio
