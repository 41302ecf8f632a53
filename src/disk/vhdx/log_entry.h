// One log entry ([MS-VHDX] 2.3.1): descriptors of what is to be written where, then the data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/vhdx/format.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhdx {

inline constexpr uint32_t kLogSectorBytes = 4096;

struct LogEntryHeader {
  uint32_t checksum = 0;
  uint32_t entry_length = 0;     // bytes, a multiple of kLogSectorBytes
  uint32_t tail = 0;             // bytes from the beginning of the log
  uint64_t sequence_number = 0;  // above 0
  uint32_t descriptor_count = 0;
  Guid log_guid;
  uint64_t flushed_file_offset = 0;  // the file is at least that big
  uint64_t last_file_offset = 0;     // all structures end before it
};

struct LogDescriptor {
  bool zero = false;         // a zero descriptor; else one with a data sector
  uint64_t file_offset = 0;  // bytes, a multiple of 4 KiB
  uint64_t length = 0;       // bytes; kLogSectorBytes for a data sector
  uint64_t sequence_number = 0;
  uint64_t leading_bytes = 0;   // the first eight of the data, as they are in memory
  uint32_t trailing_bytes = 0;  // the last four
};

using LogSector = std::span<const uint8_t, kLogSectorBytes>;

// Sectors that `descriptor_count` descriptors and the header take.
[[nodiscard]] constexpr uint64_t DescriptorSectors(uint64_t descriptor_count) {
  return (2 + descriptor_count + 127) / 128;  // the header has the size of two descriptors
}
// Place of descriptor `index`: its sector within the entry, and its byte within that.
[[nodiscard]] constexpr uint64_t DescriptorSector(uint64_t index) { return (index + 2) / 128; }
[[nodiscard]] constexpr size_t DescriptorByte(uint64_t index) { return (index + 2) % 128 * 32; }

// The header in an entry's first sector, or nothing when there is none that could be of a log of
// `log_bytes` with `log_guid`: every field of it is checked but the checksum, which needs the whole
// entry.
[[nodiscard]] bool ParseLogEntryHeader(LogSector sector, const Guid& log_guid, uint64_t log_bytes,
                                       LogEntryHeader& header);
// False unless it is a descriptor of the entry with that sequence number.
[[nodiscard]] bool ParseLogDescriptor(const uint8_t* bytes, uint64_t sequence_number,
                                      LogDescriptor& descriptor);
[[nodiscard]] bool IsDataSector(LogSector sector, uint64_t sequence_number);
// What the data sector stands for, into `page`.
void RestoreDataSector(const LogDescriptor& descriptor, LogSector sector,
                       std::span<uint8_t, kLogSectorBytes> page);

// A 4-KiB piece of the file to be written.
struct PageWrite {
  uint64_t file_offset = 0;
  const uint8_t* bytes = nullptr;  // kLogSectorBytes of them
};
// Bytes of an entry with so many pages.
[[nodiscard]] constexpr uint64_t LogEntryBytes(uint64_t pages) {
  return (DescriptorSectors(pages) + pages) * kLogSectorBytes;
}
// The whole entry; `header`'s length, count and checksum are set here.
std::vector<uint8_t> BuildLogEntry(LogEntryHeader header, std::span<const PageWrite> pages);

}  // namespace bothy::disk::vhdx
