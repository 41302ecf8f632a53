// The state tree in Prometheus' text format, version 0.0.4.
#pragma once

#include <string>

#include "inspect/value.h"

namespace bothy::metrics {

inline constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

// What the catalogue has of `root`, which is the whole tree. A metric of which the tree shows
// nothing (a directory of an I/O thread that was late, no VM) is left out, its HELP and TYPE, too.
[[nodiscard]] std::string Exposition(const inspect::Value& root);

}  // namespace bothy::metrics
