// Other programs, run to their end by a test.
#pragma once

#include <string>
#include <vector>

namespace bothy::integration {

struct ProgramResult {
  int status = 0;  // as waitpid(2) has it
  std::string output;
  std::string error_output;
};

// `words[0]` is a path.
[[nodiscard]] ProgramResult RunProgram(std::vector<std::string> words);

}  // namespace bothy::integration
