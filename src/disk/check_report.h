// CheckReport: what examining an image found. Shared by the formats.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace bothy::disk {

enum class Severity : uint8_t {
  // Harmless, and undone by repair: space that nothing refers to, an unclean shutdown.
  kNote,
  // The contents are there, but one of the copies that guard them isn't: repair restores it.
  kWarning,
  // The contents, or part of them, can't be told.
  kError,
};

struct Problem {
  Severity severity = Severity::kError;
  uint64_t offset = 0;  // in the image's file, bytes
  std::string field;    // as the specification names it: "BAT[17].FileOffsetMB"
  std::string message;  // "past the end of the file"
  bool repairable = false;
};

struct CheckReport {
  // At most kMaxProblems of them, in the order found; a hostile image could have any number.
  static constexpr size_t kMaxProblems = 1000;
  std::vector<Problem> problems;
  // Those left out.
  uint64_t more_problems = 0;

  // Of a differencing image whose parent can be opened: its file, which isn't looked at.
  std::string parent_path;

  // Of a raw image, which has nothing but its size and its bytes: "file" or "block device".
  std::string raw;

  // Blocks (of the virtual disk; those of a fixed image are all allocated).
  uint64_t blocks_total = 0;
  uint64_t blocks_allocated = 0;  // that lie in the file, whole or in part
  uint64_t block_size_bytes = 0;
  // Room in the file, in bytes.
  uint64_t file_bytes = 0;
  uint64_t allocated_bytes = 0;  // that blocks take, with what belongs to each of them
  uint64_t leaked_bytes = 0;     // that nothing refers to

  void Add(Problem problem) {
    worst = problems.empty() && more_problems == 0 ? problem.severity
            : problem.severity > worst             ? problem.severity
                                                   : worst;
    if (problems.size() < kMaxProblems) {
      problems.push_back(std::move(problem));
    } else {
      ++more_problems;
    }
  }
  // Nothing was found, not even a note.
  [[nodiscard]] bool clean() const { return problems.empty() && more_problems == 0; }
  // Nothing is lost: an image that may be written to.
  [[nodiscard]] bool sound() const { return clean() || worst < Severity::kError; }

  Severity worst = Severity::kNote;
};

}  // namespace bothy::disk
