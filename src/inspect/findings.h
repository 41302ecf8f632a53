// What one description has found of what was asked for: between Node, which fills it, and
// Inspection, which puts the parts of an answer together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "inspect/node.h"
#include "inspect/value.h"

namespace bothy::inspect {

struct Node::Findings {
  // A directory of `value` that has a description of its own.
  struct Awaited {
    uint64_t number = 0;
    std::vector<size_t> position;  // indices of entries from `value` down
  };
  static constexpr size_t kMostNames = 16;

  size_t matched = 0;      // components of the path that there are
  uint64_t elsewhere = 0;  // not 0: the path goes on in the description of that number
  bool found = false;      // the node asked for is `value`
  inspect::Value value;
  std::vector<Awaited> awaited;

  // When it isn't found: what there is where the path ends.
  bool is_leaf = false;
  bool more_names = false;
  std::vector<std::string> names;
};

}  // namespace bothy::inspect
