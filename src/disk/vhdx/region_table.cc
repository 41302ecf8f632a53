#include "disk/vhdx/region_table.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/crc32c.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint32_t kSignature = 0x69676572;  // "regi"
constexpr uint32_t kMaxEntries = 2047;
constexpr size_t kTableHeaderBytes = 16;
constexpr size_t kEntryBytes = 32;

std::string FieldName(uint32_t index, std::string_view field) {
  return absl::StrCat("RegionTable[", index, "].", std::string(field));
}

}  // namespace

const Region& RegionTable::bat() const { return *const_cast<RegionTable*>(this)->Find(kBatRegion); }
const Region& RegionTable::metadata() const {
  return *const_cast<RegionTable*>(this)->Find(kMetadataRegion);
}
Region* RegionTable::Find(const Guid& id) {
  const auto found = std::ranges::find(regions, id, &Region::id);
  return found == regions.end() ? nullptr : &*found;
}

absl::StatusOr<RegionTable> ParseRegionTable(std::span<const uint8_t, kRegionTableBytes> bytes,
                                             uint64_t offset) {
  if (LoadLe<uint32_t>(bytes.data()) != kSignature) {
    return Damaged(offset, "RegionTable.Signature", "not that of a region table");
  }
  if (LoadLe<uint32_t>(bytes.data() + 4) != Crc32cWithoutField(bytes, 4)) {
    return Damaged(offset + 4, "RegionTable.Checksum", "doesn't match the contents");
  }
  const auto count = LoadLe<uint32_t>(bytes.data() + 8);
  if (count > kMaxEntries) {
    return Damaged(offset + 8, "RegionTable.EntryCount",
                   absl::StrCat(count, " is over ", kMaxEntries));
  }
  RegionTable table;
  std::vector<std::pair<uint64_t, uint32_t>> order;  // offset of the region, index
  for (uint32_t i = 0; i < count; ++i) {
    const size_t at = kTableHeaderBytes + i * kEntryBytes;
    const uint8_t* entry = bytes.data() + at;
    Region region;
    std::memcpy(region.id.bytes.data(), entry, 16);
    region.offset = LoadLe<uint64_t>(entry + 16);
    region.length = LoadLe<uint32_t>(entry + 24);
    region.required = (LoadLe<uint32_t>(entry + 28) & 1) != 0;
    if (region.offset % kAlignment != 0 || region.offset < kHeaderSectionBytes ||
        region.offset > kMaxFileBytes) {
      return Damaged(
          offset + at + 16, FieldName(i, "FileOffset"),
          absl::StrCat(region.offset, " isn't a multiple of 1 MiB from 1 MiB to ", kMaxFileBytes));
    }
    if (region.length % kAlignment != 0 || region.length == 0) {
      return Damaged(offset + at + 24, FieldName(i, "Length"),
                     absl::StrCat(region.length, " isn't a multiple of 1 MiB above 0"));
    }
    if (region.required && region.id != kBatRegion && region.id != kMetadataRegion) {
      return Unsupported(offset + at, FieldName(i, "Guid"),
                         absl::StrCat(region.id.ToString(), " is required, but not known"));
    }
    order.emplace_back(region.offset, i);
    table.regions.push_back(region);
  }
  std::ranges::sort(order);
  for (size_t i = 1; i < order.size(); ++i) {
    const Region& before = table.regions[order[i - 1].second];
    if (before.offset + before.length > order[i].first) {
      return Damaged(offset + kTableHeaderBytes + order[i].second * kEntryBytes + 16,
                     FieldName(order[i].second, "FileOffset"),
                     absl::StrCat("overlaps entry ", order[i - 1].second));
    }
  }
  std::vector<std::pair<Guid, uint32_t>> ids;
  for (uint32_t i = 0; i < count; ++i) ids.emplace_back(table.regions[i].id, i);
  std::ranges::sort(ids);
  for (size_t i = 1; i < ids.size(); ++i) {
    if (ids[i].first == ids[i - 1].first) {
      return Damaged(offset + kTableHeaderBytes + ids[i].second * kEntryBytes,
                     FieldName(ids[i].second, "Guid"),
                     absl::StrCat("the same as of entry ", ids[i - 1].second));
    }
  }
  if (table.Find(kBatRegion) == nullptr) {
    return Damaged(offset + 8, "RegionTable", "has no BAT");
  }
  if (table.Find(kMetadataRegion) == nullptr) {
    return Damaged(offset + 8, "RegionTable", "has no metadata region");
  }
  return table;
}

void BuildRegionTable(const RegionTable& table, std::span<uint8_t, kRegionTableBytes> out) {
  CHECK(table.regions.size() <= kMaxEntries);
  std::ranges::fill(out, 0);
  StoreLe(out.data(), kSignature);
  StoreLe(out.data() + 8, static_cast<uint32_t>(table.regions.size()));
  uint8_t* entry = out.data() + kTableHeaderBytes;
  for (const Region& region : table.regions) {
    std::memcpy(entry, region.id.bytes.data(), 16);
    StoreLe(entry + 16, region.offset);
    StoreLe(entry + 24, region.length);
    StoreLe(entry + 28, uint32_t{region.required});
    entry += kEntryBytes;
  }
  StoreLe(out.data() + 4, Crc32cWithoutField(out, 4));
}

}  // namespace bothy::disk::vhdx
