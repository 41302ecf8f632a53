// The region table ([MS-VHDX] 2.2.3): where BAT and metadata lie. Two copies of it do.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/vhdx/format.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhdx {

struct Region {
  Guid id;
  uint64_t offset = 0;  // bytes, in the file; a multiple of 1 MiB
  uint32_t length = 0;  // bytes; a multiple of 1 MiB
  bool required = false;
  bool operator==(const Region&) const = default;
};

struct RegionTable {
  std::vector<Region> regions;  // in the order of the table, unknown ones included
  // There is one each after a successful parse.
  [[nodiscard]] const Region& bat() const;
  [[nodiscard]] const Region& metadata() const;
  [[nodiscard]] Region* Find(const Guid& id);
  bool operator==(const RegionTable&) const = default;
};

// The table that was read from `offset`. DataLoss for what breaks the format; InvalidArgument for a
// required region that isn't known. Says nothing of the file's size: a log could still extend it.
absl::StatusOr<RegionTable> ParseRegionTable(std::span<const uint8_t, kRegionTableBytes> bytes,
                                             uint64_t offset);
void BuildRegionTable(const RegionTable& table, std::span<uint8_t, kRegionTableBytes> out);

}  // namespace bothy::disk::vhdx
