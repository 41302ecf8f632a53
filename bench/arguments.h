// The command lines of the benchmarks' programs: "[OPTION VALUE]... MODE [WORD]...".
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace bothy::bench {

// What each option does with its value.
using Options = std::map<std::string_view, std::function<void(const std::string&)>>;

struct Arguments {
  std::string mode;  // empty: there is none
  std::vector<std::string> words;
};

// Calls `options` for those at the front of `words`; what follows them.
Arguments TakeOptions(const std::vector<std::string>& words, const Options& options);

}  // namespace bothy::bench
