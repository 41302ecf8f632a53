// SpaceMap: which MiB of a file belong to something. Memory grows with what is claimed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "disk/vhdx/format.h"

namespace bothy::disk::vhdx {

class SpaceMap {
 public:
  // `offset` and `length` are multiples of 1 MiB below kMaxFileBytes. False, and nothing is
  // claimed, when a part of it is somebody's already.
  bool Claim(uint64_t offset, uint64_t length);
  [[nodiscard]] uint64_t claimed_bytes() const { return claimed_units_ * kMiB; }
  // Where the last claim in the file ends.
  [[nodiscard]] uint64_t end() const { return end_; }
  // The first run before `end` that nobody claimed, from `offset` on; length 0: none.
  struct Run {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  [[nodiscard]] Run FindFree(uint64_t offset, uint64_t end) const;

 private:
  static constexpr uint64_t kUnitsOfAPart = 65536;
  using Part = std::array<uint64_t, kUnitsOfAPart / 64>;
  [[nodiscard]] bool IsClaimed(uint64_t unit) const;

  std::map<uint64_t, std::unique_ptr<Part>> parts_;
  uint64_t claimed_units_ = 0;
  uint64_t end_ = 0;
};

}  // namespace bothy::disk::vhdx
