// TestFolder: a folder for the files and sockets of one test, gone with it.
//
// In the folder for temporary files, unless its name is so long that paths of sockets in here could
// not fit an address: tests pass whatever TMPDIR says.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/check.h"

namespace bothy {

class TestFolder {
 public:
  TestFolder() : path_(Parent() + "/bothy-test-XXXXXX") {
    CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const {
    return path_ + "/" + std::string(name);
  }
  // Writes a file there; returns its path.
  std::string Write(std::string_view name, std::span<const uint8_t> bytes) const {
    std::string path = *this / name;
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    file.close();
    CHECK(file.good());
    return path;
  }
  std::string WriteText(std::string_view name, std::string_view text) const {
    return Write(name, std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  // Names of what is there, sorted.
  [[nodiscard]] std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  // 107 bytes are what an address takes, and some tests have folders in theirs.
  static constexpr size_t kMaxParentBytes = 40;
  static std::string Parent() {
    std::error_code error;
    const std::string parent = std::filesystem::temp_directory_path(error).string();
    return error || parent.size() > kMaxParentBytes ? "/tmp" : parent;
  }

  std::string path_;
};

}  // namespace bothy
