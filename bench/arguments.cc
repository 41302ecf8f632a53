#include "bench/arguments.h"

namespace bothy::bench {

Arguments TakeOptions(const std::vector<std::string>& words, const Options& options) {
  auto word = words.begin();
  for (; words.end() - word > 1 && options.contains(*word); word += 2) options.at (*word)(word[1]);
  Arguments rest;
  if (word != words.end()) rest.mode = *word++;
  rest.words.assign(word, words.end());
  return rest;
}

}  // namespace bothy::bench
