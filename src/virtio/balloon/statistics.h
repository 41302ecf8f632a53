// What a guest says of its memory (virtio 1.2, 5.5.6.3): numbers with tags, of which a driver may
// leave any out.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "inspect/node.h"

namespace bothy::virtio::balloon {

// 5.5.6.4
enum class Tag : uint16_t {
  kSwappedIn,  // bytes since the guest booted
  kSwappedOut,
  kMajorFaults,
  kMinorFaults,
  kFree,       // bytes that nothing uses
  kTotal,      // bytes
  kAvailable,  // bytes that could be used without swapping: free ones, and caches
  kCaches,     // bytes
  kHugeAllocations,
  kHugeFailures,
  kCount
};
inline constexpr size_t kStatisticBytes = 10;  // le16 tag, le64 value

class Statistics {
 public:
  // From what the driver sent. Unknown tags are passed over, a part of one at the end too; the last
  // one of a tag counts.
  static Statistics Parse(std::span<const uint8_t> bytes);

  [[nodiscard]] std::optional<uint64_t> Get(Tag tag) const {
    return values_[static_cast<size_t>(tag)];
  }
  // Those that there are.
  void Inspect(inspect::Node& node) const;

 private:
  std::array<std::optional<uint64_t>, static_cast<size_t>(Tag::kCount)> values_;
};

}  // namespace bothy::virtio::balloon
