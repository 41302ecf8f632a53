// Paths from the command line, for a server that may run in another folder.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

namespace bothy::bothyctl {

// Absolute, by this process's folder; empty stays empty.
inline std::string AbsolutePath(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

}  // namespace bothy::bothyctl
