#include "disk/vhdx/metadata.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/vhdx.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint8_t kSignature[8] = {'m', 'e', 't', 'a', 'd', 'a', 't', 'a'};
constexpr uint16_t kMaxEntries = 2047;
constexpr uint32_t kMaxUserEntries = 1024;
constexpr uint32_t kMaxItemBytes = 1 << 20;
constexpr size_t kEntryBytes = 32;
enum : uint32_t { kIsUser = 1, kIsVirtualDisk = 2, kIsRequired = 4 };
enum : uint32_t { kLeaveBlockAllocated = 1, kHasParent = 2 };

struct Known {
  Guid id;
  const char* name;
  uint32_t length;  // 0: any
};
constexpr Known kKnown[] = {
    {kFileParametersItem, "FileParameters", 8},
    {kVirtualDiskSizeItem, "VirtualDiskSize", 8},
    {kVirtualDiskIdItem, "VirtualDiskId", 16},
    {kLogicalSectorSizeItem, "LogicalSectorSize", 4},
    {kPhysicalSectorSizeItem, "PhysicalSectorSize", 4},
    {kParentLocatorItem, "ParentLocator", 0},
};
const Known* FindKnown(const Guid& id) {
  const auto* found = std::ranges::find(kKnown, id, &Known::id);
  return found == std::end(kKnown) ? nullptr : found;
}

std::string FieldName(size_t index, std::string_view field) {
  return absl::StrCat("MetadataTable[", index, "].", std::string(field));
}

absl::Status CheckPlaces(const MetadataTable& table, uint64_t offset, uint64_t region_bytes) {
  std::vector<std::pair<uint32_t, size_t>> order;
  for (size_t i = 0; i < table.items.size(); ++i) {
    const MetadataItem& item = table.items[i];
    const uint64_t at = offset + (i + 1) * kEntryBytes;
    if (item.length == 0) {
      if (item.offset == 0) continue;
      return Damaged(at + 16, FieldName(i, "Offset"), "isn't 0 though the item is empty");
    }
    if (item.length > kMaxItemBytes) {
      return Damaged(at + 20, FieldName(i, "Length"), absl::StrCat(item.length, " is over 1 MiB"));
    }
    if (item.offset < kMetadataTableBytes || item.offset > region_bytes ||
        item.length > region_bytes - item.offset) {
      return Damaged(
          at + 16, FieldName(i, "Offset"),
          absl::StrCat(item.length, " bytes at ", item.offset,
                       " aren't between the table and the region's end at ", region_bytes));
    }
    order.emplace_back(item.offset, i);
  }
  std::ranges::sort(order);
  for (size_t i = 1; i < order.size(); ++i) {
    const MetadataItem& before = table.items[order[i - 1].second];
    if (before.offset + before.length > order[i].first) {
      return Damaged(offset + (order[i].second + 1) * kEntryBytes + 16,
                     FieldName(order[i].second, "Offset"),
                     absl::StrCat("overlaps item ", order[i - 1].second));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const MetadataTable& table, uint64_t offset) {
  std::vector<std::tuple<Guid, bool, size_t>> order;
  for (size_t i = 0; i < table.items.size(); ++i) {
    order.emplace_back(table.items[i].id, table.items[i].is_user, i);
  }
  std::ranges::sort(order);
  for (size_t i = 1; i < order.size(); ++i) {
    const auto& [id, user, index] = order[i];
    if (id == std::get<0>(order[i - 1]) && user == std::get<1>(order[i - 1])) {
      return Damaged(offset + (index + 1) * kEntryBytes, FieldName(index, "ItemId"),
                     absl::StrCat("the same as of item ", std::get<2>(order[i - 1])));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const MetadataItem* MetadataTable::Find(const Guid& id) const {
  const auto found = std::ranges::find_if(
      items, [&id](const MetadataItem& item) { return item.id == id && !item.is_user; });
  return found == items.end() ? nullptr : &*found;
}

absl::StatusOr<MetadataTable> ParseMetadataTable(
    std::span<const uint8_t, kMetadataTableBytes> bytes, uint64_t offset, uint64_t region_bytes) {
  if (std::memcmp(bytes.data(), kSignature, sizeof kSignature) != 0) {
    return Damaged(offset, "MetadataTable.Signature", "not that of a metadata table");
  }
  const auto count = LoadLe<uint16_t>(bytes.data() + 10);
  if (count > kMaxEntries) {
    return Damaged(offset + 10, "MetadataTable.EntryCount",
                   absl::StrCat(count, " is over ", kMaxEntries));
  }
  MetadataTable table;
  uint32_t user_entries = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* entry = bytes.data() + (i + 1) * kEntryBytes;
    MetadataItem item;
    std::memcpy(item.id.bytes.data(), entry, 16);
    item.offset = LoadLe<uint32_t>(entry + 16);
    item.length = LoadLe<uint32_t>(entry + 20);
    const auto bits = LoadLe<uint32_t>(entry + 24);
    item.is_user = (bits & kIsUser) != 0;
    item.is_virtual_disk = (bits & kIsVirtualDisk) != 0;
    item.is_required = (bits & kIsRequired) != 0;
    if (item.is_user) ++user_entries;
    if (item.is_required && (item.is_user || FindKnown(item.id) == nullptr)) {
      return Unsupported(offset + (i + 1) * kEntryBytes, FieldName(i, "ItemId"),
                         absl::StrCat(item.id.ToString(), " is required, but not known"));
    }
    table.items.push_back(item);
  }
  if (user_entries > kMaxUserEntries) {
    return Damaged(offset + 10, "MetadataTable.EntryCount",
                   absl::StrCat(user_entries, " user items are over ", kMaxUserEntries));
  }
  RETURN_IF_ERROR(CheckIds(table, offset));
  RETURN_IF_ERROR(CheckPlaces(table, offset, region_bytes));
  return table;
}

void BuildMetadataTable(const MetadataTable& table, std::span<uint8_t, kMetadataTableBytes> out) {
  CHECK(table.items.size() <= kMaxEntries);
  std::ranges::fill(out, 0);
  std::memcpy(out.data(), kSignature, sizeof kSignature);
  StoreLe(out.data() + 10, static_cast<uint16_t>(table.items.size()));
  uint8_t* entry = out.data() + kEntryBytes;
  for (const MetadataItem& item : table.items) {
    std::memcpy(entry, item.id.bytes.data(), 16);
    StoreLe(entry + 16, item.offset);
    StoreLe(entry + 20, item.length);
    StoreLe(entry + 24, (item.is_user ? kIsUser : 0U) |
                            (item.is_virtual_disk ? kIsVirtualDisk : 0U) |
                            (item.is_required ? kIsRequired : 0U));
    entry += kEntryBytes;
  }
}

absl::Status ParseItem(const MetadataItem& item, std::span<const uint8_t> bytes, uint64_t offset,
                       DiskParameters& parameters) {
  const Known* known = FindKnown(item.id);
  if (known == nullptr || known->length == 0 || item.is_user) return absl::OkStatus();
  if (item.length != known->length || bytes.size() < known->length) {
    return Damaged(offset, known->name,
                   absl::StrCat("has ", item.length, " bytes instead of ", known->length));
  }
  if (item.id == kFileParametersItem) {
    parameters.block_bytes = LoadLe<uint32_t>(bytes.data());
    const auto bits = LoadLe<uint32_t>(bytes.data() + 4);
    parameters.leave_block_allocated = (bits & kLeaveBlockAllocated) != 0;
    parameters.has_parent = (bits & kHasParent) != 0;
    if (!std::has_single_bit(parameters.block_bytes) || parameters.block_bytes < kMinBlockBytes ||
        parameters.block_bytes > kMaxBlockBytes) {
      return Damaged(
          offset, "FileParameters.BlockSize",
          absl::StrCat(parameters.block_bytes, " isn't a power of two from 1 MiB to 256 MiB"));
    }
  } else if (item.id == kVirtualDiskSizeItem) {
    parameters.size_bytes = LoadLe<uint64_t>(bytes.data());
    if (parameters.size_bytes == 0 || parameters.size_bytes > kMaxDiskBytes) {
      return Damaged(offset, "VirtualDiskSize",
                     absl::StrCat(parameters.size_bytes, " isn't above 0 and at most 64 TiB"));
    }
  } else if (item.id == kVirtualDiskIdItem) {
    std::memcpy(parameters.disk_id.bytes.data(), bytes.data(), 16);
  } else {
    const auto sector = LoadLe<uint32_t>(bytes.data());
    if (sector != 512 && sector != 4096) {
      return Damaged(offset, known->name, absl::StrCat(sector, " is neither 512 nor 4096"));
    }
    (item.id == kLogicalSectorSizeItem ? parameters.logical_sector_bytes
                                       : parameters.physical_sector_bytes) = sector;
  }
  return absl::OkStatus();
}

absl::Status CheckParameters(const MetadataTable& table, const DiskParameters& parameters,
                             uint64_t offset) {
  for (const Known& known : kKnown) {
    if (known.id == kParentLocatorItem && !parameters.has_parent) continue;
    if (table.Find(known.id) == nullptr) {
      return Damaged(offset, "MetadataTable", absl::StrCat("has no ", known.name));
    }
  }
  if (parameters.size_bytes % parameters.logical_sector_bytes != 0) {
    return Damaged(offset + table.Find(kVirtualDiskSizeItem)->offset, "VirtualDiskSize",
                   absl::StrCat(parameters.size_bytes, " isn't a multiple of the sector size, ",
                                parameters.logical_sector_bytes));
  }
  return absl::OkStatus();
}

std::vector<uint8_t> BuildMetadataRegion(const DiskParameters& parameters,
                                         std::span<const uint8_t> locator) {
  MetadataTable table;
  std::vector<uint8_t> bytes(kMetadataTableBytes);
  const auto add = [&](const Guid& id, bool virtual_disk, std::span<const uint8_t> value) {
    table.items.push_back({.id = id,
                           .offset = static_cast<uint32_t>(bytes.size()),
                           .length = static_cast<uint32_t>(value.size()),
                           .is_virtual_disk = virtual_disk,
                           .is_required = true});
    bytes.insert(bytes.end(), value.begin(), value.end());
    bytes.resize(RoundUp(bytes.size(), 8));
  };
  uint8_t value[8];
  StoreLe(value, parameters.block_bytes);
  StoreLe(value + 4, (parameters.leave_block_allocated ? kLeaveBlockAllocated : 0U) |
                         (parameters.has_parent ? kHasParent : 0U));
  add(kFileParametersItem, false, value);
  StoreLe(value, parameters.size_bytes);
  add(kVirtualDiskSizeItem, true, value);
  add(kVirtualDiskIdItem, true, parameters.disk_id.bytes);
  StoreLe(value, parameters.logical_sector_bytes);
  add(kLogicalSectorSizeItem, true, std::span(value).first(4));
  StoreLe(value, parameters.physical_sector_bytes);
  add(kPhysicalSectorSizeItem, true, std::span(value).first(4));
  if (parameters.has_parent) add(kParentLocatorItem, false, locator);
  BuildMetadataTable(table, std::span(bytes).first<kMetadataTableBytes>());
  return bytes;
}

}  // namespace bothy::disk::vhdx
