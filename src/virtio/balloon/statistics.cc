#include "virtio/balloon/statistics.h"

#include "support/endian.h"

namespace bothy::virtio::balloon {

Statistics Statistics::Parse(std::span<const uint8_t> bytes) {
  Statistics statistics;
  for (; bytes.size() >= kStatisticBytes; bytes = bytes.subspan(kStatisticBytes)) {
    const size_t tag = LoadLe<uint16_t>(bytes.data());
    if (tag < statistics.values_.size()) {
      statistics.values_[tag] = LoadLe<uint64_t>(bytes.data() + 2);
    }
  }
  return statistics;
}

void Statistics::Inspect(inspect::Node& node) const {
  constexpr std::array<const char*, static_cast<size_t>(Tag::kCount)> kNames = {
      "swapped_in_bytes", "swapped_out_bytes", "major_faults", "minor_faults",     "free_bytes",
      "total_bytes",      "available_bytes",   "cache_bytes",  "huge_allocations", "huge_failures"};
  for (size_t tag = 0; tag < kNames.size(); ++tag) {
    if (values_[tag].has_value()) node.Value(kNames[tag], *values_[tag]);
  }
}

}  // namespace bothy::virtio::balloon
