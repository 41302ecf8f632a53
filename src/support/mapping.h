// Mapping: sole owner of a range of this process's address space made by mmap(2).
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "support/status.h"

namespace bothy {

class Mapping {
 public:
  Mapping() = default;
  // mmap(2) with the same meaning of every argument; `what` names the object in the error.
  static absl::StatusOr<Mapping> Create(size_t size_bytes, int protection, int flags, int fd,
                                        uint64_t offset, std::string_view what);
  // The same, at an address that is a multiple of `alignment_bytes` (a power of two, at least a
  // page).
  static absl::StatusOr<Mapping> CreateAligned(size_t size_bytes, size_t alignment_bytes,
                                               int protection, int flags, int fd, uint64_t offset,
                                               std::string_view what);
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Reset(); }

  [[nodiscard]] uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  [[nodiscard]] size_t size() const { return size_; }  // bytes
  [[nodiscard]] std::span<uint8_t> bytes() const { return {data(), size_}; }
  void Reset();

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bothy
