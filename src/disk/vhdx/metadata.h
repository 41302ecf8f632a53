// The metadata region ([MS-VHDX] 2.6): a table of items, and the items this implementation knows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/vhdx/format.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhdx {

struct MetadataItem {
  Guid id;
  uint32_t offset = 0;  // bytes, from the beginning of the region; 0 for an empty item
  uint32_t length = 0;  // bytes
  bool is_user = false;
  bool is_virtual_disk = false;
  bool is_required = false;
};

struct MetadataTable {
  std::vector<MetadataItem> items;  // in the order of the table
  // The system item of that kind, or null.
  [[nodiscard]] const MetadataItem* Find(const Guid& id) const;
};

// The table at `offset` of the file, the beginning of a region of `region_bytes`. DataLoss for what
// breaks the format; InvalidArgument for a required item that isn't known.
absl::StatusOr<MetadataTable> ParseMetadataTable(
    std::span<const uint8_t, kMetadataTableBytes> bytes, uint64_t offset, uint64_t region_bytes);
void BuildMetadataTable(const MetadataTable& table, std::span<uint8_t, kMetadataTableBytes> out);

// 2.6.2.1 .. 2.6.2.5
struct DiskParameters {
  uint32_t block_bytes = 0;
  bool leave_block_allocated = false;  // a fixed image
  bool has_parent = false;
  uint64_t size_bytes = 0;
  Guid disk_id;
  uint32_t logical_sector_bytes = 0;
  uint32_t physical_sector_bytes = 0;
};

inline constexpr uint32_t kLongestFixedItem = 16;

// Puts the value of one of the five items, `bytes` from `offset` of the file, into `parameters`.
// DataLoss for a wrong length or value. Items of other kinds change nothing.
absl::Status ParseItem(const MetadataItem& item, std::span<const uint8_t> bytes, uint64_t offset,
                       DiskParameters& parameters);
// What the items say together: a size that is whole sectors, and all five there. `offset` is that
// of the region.
absl::Status CheckParameters(const MetadataTable& table, const DiskParameters& parameters,
                             uint64_t offset);

// The region's first bytes, table and items, for `parameters` and, where it has a parent,
// `locator`.
std::vector<uint8_t> BuildMetadataRegion(const DiskParameters& parameters,
                                         std::span<const uint8_t> locator);

}  // namespace bothy::disk::vhdx
