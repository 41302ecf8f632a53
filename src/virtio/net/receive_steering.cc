#include "virtio/net/receive_steering.h"

#include <bit>
#include <utility>

#include "support/endian.h"
#include "virtio/net/flow_fields.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

// struct virtio_net_rss_config: offsets, up to the table; behind it max_tx_vq, the key's length and
// the key.
constexpr size_t kHashTypes = 0;
constexpr size_t kTableMask = 4;
constexpr size_t kUnclassified = 6;
constexpr size_t kTable = 8;
constexpr size_t kEntryBytes = sizeof(uint16_t);

}  // namespace

std::optional<ReceiveSteering> ReceiveSteering::Parse(std::span<const uint8_t> config,
                                                      const std::vector<bool>& receive_queues) {
  if (config.size() < kTable) return std::nullopt;
  const auto hash_types = LoadLe<uint32_t>(&config[kHashTypes]);
  const size_t entries = size_t{LoadLe<uint16_t>(&config[kTableMask])} + 1;
  const auto unclassified = LoadLe<uint16_t>(&config[kUnclassified]);
  if ((hash_types & ~net_wire::kHashTypes) != 0) return std::nullopt;
  if (!std::has_single_bit(entries) || entries > kMostTableEntries) return std::nullopt;
  const size_t behind = kTable + entries * kEntryBytes;
  if (config.size() < behind + sizeof(uint16_t) + 1) return std::nullopt;
  const auto transmit_queues = LoadLe<uint16_t>(&config[behind]);
  const std::span<const uint8_t> key = config.subspan(behind + sizeof(uint16_t) + 1);
  const size_t key_bytes = config[behind + sizeof(uint16_t)];
  if (key_bytes != key.size() || key_bytes > kMostKeyBytes) return std::nullopt;
  // Without a key all hashes are the same.
  if (key.empty() && hash_types != 0) return std::nullopt;

  const auto is_there = [&](uint16_t pair) {
    return pair < receive_queues.size() && receive_queues[pair];
  };
  if (transmit_queues < 1 || transmit_queues > receive_queues.size()) return std::nullopt;
  if (!is_there(unclassified)) return std::nullopt;
  std::vector<uint16_t> table(entries);
  for (size_t i = 0; i < entries; ++i) {
    table[i] = LoadLe<uint16_t>(&config[kTable + i * kEntryBytes]);
    if (!is_there(table[i])) return std::nullopt;
  }
  return ReceiveSteering(key, hash_types, unclassified, std::move(table), transmit_queues);
}

uint16_t ReceiveSteering::PairOf(std::span<const uint8_t> start) const {
  const FlowFields fields = FlowFieldsOf(start, hash_types_);
  if (fields.size == 0) return unclassified_;
  return table_[hash_.Of(fields.input()) & (table_.size() - 1)];
}

}  // namespace bothy::virtio
