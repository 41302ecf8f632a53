// A tree of files like that of a kernel's source: so many files a folder, mostly small, some of
// 128 KiB, 18 KiB on average. The guest's programs `make-tree` and `check-tree` know what is in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/guest/known_writes.h"

namespace known_tree {

// Linux 6.1 has 78,600 files.
inline constexpr uint64_t kFilesOfAKernel = 78'600;

inline constexpr uint64_t kFilesPerFolder = 16;
inline constexpr uint64_t kFoldersPerFolder = 64;

// Below the tree's root.
inline std::string FolderOf(uint64_t file) {
  const uint64_t folder = file / kFilesPerFolder;
  return std::to_string(folder / kFoldersPerFolder) + "/" +
         std::to_string(folder % kFoldersPerFolder);
}
inline std::string PathOf(uint64_t file) {
  return FolderOf(file) + "/" + std::to_string(file % kFilesPerFolder) + ".c";
}

inline std::vector<char> ContentsOf(uint64_t file) {
  const uint64_t choice = known_writes::Word(file, 0);
  const uint64_t unit = uint64_t{64} << choice % 11;
  std::vector<char> contents(unit + choice / 11 % unit);
  for (size_t i = 0; i < contents.size(); ++i) {
    contents[i] = static_cast<char>(known_writes::Word(file, 1 + i / 8) >> i % 8 * 8);
  }
  return contents;
}

}  // namespace known_tree
