#include "disk/vhdx/log_scan.h"

#include <algorithm>
#include <map>

#include "disk/damage.h"
#include "disk/vhdx/crc32c.h"
#include "support/check.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kReadAheadSectors = 64;
constexpr size_t kChecksumOffset = 4;

// Whether the entry whose first sector parses as `header` is whole.
Task<absl::StatusOr<bool>> IsValidEntry(LogReader& reader, const LogEntryPlace& place) {
  const LogEntryHeader& header = place.header;
  const uint64_t sectors = header.entry_length / kLogSectorBytes;
  const uint64_t descriptor_sectors = DescriptorSectors(header.descriptor_count);
  uint64_t data_descriptors = 0;
  uint64_t descriptor_index = 0;
  uint32_t checksum = 0;
  for (uint64_t i = 0; i < sectors; ++i) {
    if (!reader.Has(place.sector + i)) {
      absl::Status status = co_await reader.Fetch(place.sector + i);
      CO_RETURN_IF_ERROR(status);
    }
    const LogSector sector = reader.sector(place.sector + i);
    if (i < descriptor_sectors) {
      while (descriptor_index < header.descriptor_count &&
             DescriptorSector(descriptor_index) == i) {
        LogDescriptor descriptor;
        if (!ParseLogDescriptor(sector.data() + DescriptorByte(descriptor_index),
                                header.sequence_number, descriptor)) {
          co_return false;
        }
        if (!descriptor.zero) ++data_descriptors;
        ++descriptor_index;
      }
      if (i + 1 == descriptor_sectors && descriptor_sectors + data_descriptors != sectors) {
        co_return false;
      }
    } else if (!IsDataSector(sector, header.sequence_number)) {
      co_return false;
    }
    checksum = i == 0 ? Crc32cWithoutField(sector, kChecksumOffset) : Crc32c(sector, checksum);
  }
  co_return checksum == header.checksum;
}

// Every whole entry of the ring by the sector it begins at.
Task<absl::StatusOr<std::map<uint64_t, LogEntryHeader>>> FindEntries(Storage& storage,
                                                                     const LogPlace& place) {
  std::map<uint64_t, LogEntryHeader> entries;
  LogReader reader(storage, place);
  for (uint64_t at = 0; at < reader.sectors(); ++at) {
    if (!reader.Has(at)) {
      absl::Status status = co_await reader.Fetch(at);
      CO_RETURN_IF_ERROR(status);
    }
    LogEntryPlace entry = {.sector = at, .header = {}};
    if (!ParseLogEntryHeader(reader.sector(at), place.guid, place.length, entry.header)) continue;
    absl::StatusOr<bool> valid = co_await IsValidEntry(reader, entry);
    CO_RETURN_IF_ERROR(valid.status());
    if (*valid) entries.emplace(at, entry.header);
  }
  co_return entries;
}

}  // namespace

LogSector LogReader::sector(uint64_t index) const {
  CHECK(Has(index));
  return LogSector(buffer_.data() + (index % sectors() - first_) * kLogSectorBytes,
                   kLogSectorBytes);
}

bool LogReader::Has(uint64_t index) const {
  const uint64_t wrapped = index % sectors();
  return wrapped >= first_ && wrapped - first_ < buffer_.size() / kLogSectorBytes;
}

Task<absl::Status> LogReader::Fetch(uint64_t index) {
  first_ = index % sectors();
  buffer_.resize(std::min(kReadAheadSectors, sectors() - first_) * kLogSectorBytes);
  absl::Status status = co_await ReadAt(storage_, place_.offset + first_ * kLogSectorBytes,
                                        std::span<uint8_t>(buffer_));
  if (!status.ok()) buffer_.clear();
  co_return status;
}

Task<absl::StatusOr<std::vector<LogEntryPlace>>> FindActiveSequence(Storage& storage,
                                                                    const LogPlace& place) {
  absl::StatusOr<std::map<uint64_t, LogEntryHeader>> found = co_await FindEntries(storage, place);
  CO_RETURN_IF_ERROR(found.status());
  const std::map<uint64_t, LogEntryHeader>& entries = *found;
  const uint64_t sectors = place.length / kLogSectorBytes;

  // Entries follow one another when they touch and count on; a sequence is a maximal run of such.
  const auto next = [&entries, sectors](uint64_t at, const LogEntryHeader& header) {
    const auto after = entries.find((at + header.entry_length / kLogSectorBytes) % sectors);
    return after != entries.end() && after->second.sequence_number == header.sequence_number + 1
               ? after
               : entries.end();
  };
  std::map<uint64_t, uint64_t> previous;
  for (const auto& [at, header] : entries) {
    const auto after = next(at, header);
    if (after != entries.end()) previous.emplace(after->first, at);
  }
  std::vector<LogEntryPlace> active;
  for (const auto& [head, header] : entries) {
    if (next(head, header) != entries.end()) continue;
    if (!active.empty() && active.front().header.sequence_number >= header.sequence_number) {
      continue;
    }
    // Back from the head to its tail.
    std::vector<LogEntryPlace> sequence;
    for (uint64_t at = head;;) {
      sequence.push_back({.sector = at, .header = entries.at(at)});
      if (at == header.tail / kLogSectorBytes) {
        active = std::move(sequence);
        break;
      }
      const auto before = previous.find(at);
      if (before == previous.end()) break;
      at = before->second;
    }
  }
  if (active.empty()) {
    co_return Damaged(place.offset, "Log", "no valid sequence of entries, though it is in use");
  }
  std::ranges::reverse(active);
  co_return active;
}

}  // namespace bothy::disk::vhdx
