#include "disk/testing/sparse_file.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "support/check.h"
#include "support/unique_fd.h"

namespace bothy::disk {

void SaveSparse(const MemoryStorage& storage, const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  CHECK(file.valid());
  for (const auto& [index, bytes] : storage.chunks()) {
    CHECK(::pwrite(file.get(), bytes.data(), bytes.size(),
                   static_cast<off_t>(index * MemoryStorage::kChunkBytes)) ==
          static_cast<ssize_t>(bytes.size()));
  }
  CHECK(::ftruncate(file.get(), static_cast<off_t>(storage.size())) == 0);
}

void LoadSparse(const std::string& path, MemoryStorage& storage) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(file.valid());
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  std::array<uint8_t, MemoryStorage::kChunkBytes> bytes;
  for (off_t at = 0; at < size;) {
    const off_t data = ::lseek(file.get(), at, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = ::lseek(file.get(), data, SEEK_HOLE);
    for (at = data; at < hole;) {
      const ssize_t part =
          ::pread(file.get(), bytes.data(),
                  std::min<size_t>(bytes.size(), static_cast<size_t>(hole - at)), at);
      CHECK(part > 0);
      storage.Poke(static_cast<uint64_t>(at), std::span(bytes).first(static_cast<size_t>(part)));
      at += part;
    }
  }
  storage.Truncate(static_cast<uint64_t>(size));
}

int RunCommand(const std::string& command, std::string& output) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  CHECK(pipe != nullptr);
  std::array<char, 4096> bytes;
  output.clear();
  while (const size_t part = std::fread(bytes.data(), 1, bytes.size(), pipe)) {
    output.append(bytes.data(), part);
  }
  const int status = ::pclose(pipe);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace bothy::disk
