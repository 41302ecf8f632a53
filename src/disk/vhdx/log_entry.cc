#include "disk/vhdx/log_entry.h"

#include <cstring>

#include "disk/vhdx/crc32c.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint32_t kEntrySignature = 0x65676F6C;       // "loge"
constexpr uint32_t kZeroSignature = 0x6F72657A;        // "zero"
constexpr uint32_t kDescriptorSignature = 0x63736564;  // "desc"
constexpr uint32_t kDataSignature = 0x61746164;        // "data"

// Places of the header's fields.
enum : size_t {
  kChecksum = 4,
  kEntryLength = 8,
  kTail = 12,
  kSequenceNumber = 16,
  kDescriptorCount = 24,
  kLogGuid = 32,
  kFlushedFileOffset = 48,
  kLastFileOffset = 56,
};

}  // namespace

bool ParseLogEntryHeader(LogSector sector, const Guid& log_guid, uint64_t log_bytes,
                         LogEntryHeader& header) {
  const uint8_t* at = sector.data();
  if (LoadLe<uint32_t>(at) != kEntrySignature) return false;
  header.checksum = LoadLe<uint32_t>(at + kChecksum);
  header.entry_length = LoadLe<uint32_t>(at + kEntryLength);
  header.tail = LoadLe<uint32_t>(at + kTail);
  header.sequence_number = LoadLe<uint64_t>(at + kSequenceNumber);
  header.descriptor_count = LoadLe<uint32_t>(at + kDescriptorCount);
  std::memcpy(header.log_guid.bytes.data(), at + kLogGuid, 16);
  header.flushed_file_offset = LoadLe<uint64_t>(at + kFlushedFileOffset);
  header.last_file_offset = LoadLe<uint64_t>(at + kLastFileOffset);
  // File sizes that aren't multiples of 1 MiB, which the format asks for, do no harm.
  return header.log_guid == log_guid && header.sequence_number != 0 &&
         header.entry_length % kLogSectorBytes == 0 && header.entry_length <= log_bytes &&
         header.tail % kLogSectorBytes == 0 && header.tail < log_bytes &&
         DescriptorSectors(header.descriptor_count) <= header.entry_length / kLogSectorBytes &&
         header.last_file_offset <= kMaxFileBytes;
}

bool ParseLogDescriptor(const uint8_t* bytes, uint64_t sequence_number, LogDescriptor& descriptor) {
  const auto signature = LoadLe<uint32_t>(bytes);
  if (signature != kZeroSignature && signature != kDescriptorSignature) return false;
  descriptor.zero = signature == kZeroSignature;
  descriptor.file_offset = LoadLe<uint64_t>(bytes + 16);
  descriptor.sequence_number = LoadLe<uint64_t>(bytes + 24);
  if (descriptor.zero) {
    descriptor.length = LoadLe<uint64_t>(bytes + 8);
  } else {
    descriptor.length = kLogSectorBytes;
    descriptor.trailing_bytes = LoadLe<uint32_t>(bytes + 4);
    descriptor.leading_bytes = LoadLe<uint64_t>(bytes + 8);
  }
  return descriptor.sequence_number == sequence_number &&
         descriptor.file_offset % kLogSectorBytes == 0 && descriptor.length % kLogSectorBytes == 0;
}

bool IsDataSector(LogSector sector, uint64_t sequence_number) {
  return LoadLe<uint32_t>(sector.data()) == kDataSignature &&
         LoadLe<uint32_t>(sector.data() + 4) == sequence_number >> 32 &&
         LoadLe<uint32_t>(sector.data() + kLogSectorBytes - 4) ==
             static_cast<uint32_t>(sequence_number);
}

void RestoreDataSector(const LogDescriptor& descriptor, LogSector sector,
                       std::span<uint8_t, kLogSectorBytes> page) {
  StoreLe(page.data(), descriptor.leading_bytes);
  std::memcpy(page.data() + 8, sector.data() + 8, kLogSectorBytes - 12);
  StoreLe(page.data() + kLogSectorBytes - 4, descriptor.trailing_bytes);
}

std::vector<uint8_t> BuildLogEntry(LogEntryHeader header, std::span<const PageWrite> pages) {
  std::vector<uint8_t> entry(LogEntryBytes(pages.size()));
  uint8_t* at = entry.data();
  StoreLe(at, kEntrySignature);
  StoreLe(at + kEntryLength, static_cast<uint32_t>(entry.size()));
  StoreLe(at + kTail, header.tail);
  StoreLe(at + kSequenceNumber, header.sequence_number);
  StoreLe(at + kDescriptorCount, static_cast<uint32_t>(pages.size()));
  std::memcpy(at + kLogGuid, header.log_guid.bytes.data(), 16);
  StoreLe(at + kFlushedFileOffset, header.flushed_file_offset);
  StoreLe(at + kLastFileOffset, header.last_file_offset);
  uint8_t* sector = at + DescriptorSectors(pages.size()) * kLogSectorBytes;
  for (size_t i = 0; i < pages.size(); ++i) {
    const uint8_t* page = pages[i].bytes;
    uint8_t* descriptor = at + DescriptorSector(i) * kLogSectorBytes + DescriptorByte(i);
    StoreLe(descriptor, kDescriptorSignature);
    StoreLe(descriptor + 4, LoadLe<uint32_t>(page + kLogSectorBytes - 4));
    StoreLe(descriptor + 8, LoadLe<uint64_t>(page));
    StoreLe(descriptor + 16, pages[i].file_offset);
    StoreLe(descriptor + 24, header.sequence_number);
    StoreLe(sector, kDataSignature);
    StoreLe(sector + 4, static_cast<uint32_t>(header.sequence_number >> 32));
    std::memcpy(sector + 8, page + 8, kLogSectorBytes - 12);
    StoreLe(sector + kLogSectorBytes - 4, static_cast<uint32_t>(header.sequence_number));
    sector += kLogSectorBytes;
  }
  StoreLe(at + kChecksum, Crc32cWithoutField(entry, kChecksum));
  return entry;
}

}  // namespace bothy::disk::vhdx
