// The metrics that a server shows (docs/metrics.md), each made of places of the state tree.
//
// A metric has no counter of its own: it says where in the tree its numbers stand, so what a scrape
// shows is what `bothyctl inspect` shows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace bothy::metrics {

enum class Type : uint8_t { kCounter, kGauge };

enum class Reading : uint8_t {
  kNumber,       // as it is; true is 1
  kNanoseconds,  // in seconds
  kText,         // the text is the value of the last label, the number 1
};

// Of the labels of one metric.
inline constexpr size_t kMaxLabels = 3;

struct Definition {
  std::string_view name;
  Type type = Type::kCounter;
  std::string_view help;  // one line
  // From the root of the state tree; each "*" stands for any one name, which is the value of the
  // label at that place of `labels`.
  std::string_view path;
  std::span<const std::string_view> labels = {};
  Reading reading = Reading::kNumber;
};

// All there are, those of one subject beside each other; names are distinct.
[[nodiscard]] std::span<const Definition> Catalogue();

}  // namespace bothy::metrics
