// A folder for the files and sockets of one test, gone with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bothy::integration {

class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file there; returns its path.
  std::string Write(const std::string& name, std::span<const uint8_t> bytes) const;
  // Names of what is there, sorted.
  [[nodiscard]] std::vector<std::string> Names() const;

 private:
  std::string path_;
};

}  // namespace bothy::integration
