#include "disk/vhdx/log_replay.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/format.h"

namespace bothy::disk::vhdx {
namespace {

// `file_bytes`: as large as the file is or is to be.
absl::Status CheckTarget(const LogDescriptor& descriptor, const LogPlace& place,
                         uint64_t file_bytes, uint64_t at) {
  // The file identifier and the headers are never written through the log (2.2.2).
  if (descriptor.file_offset < kRegionTableOffsets[0] || descriptor.file_offset > kMaxFileBytes ||
      descriptor.length > kMaxFileBytes - descriptor.file_offset) {
    return Damaged(at, "Descriptor.FileOffset",
                   absl::StrCat(descriptor.length, " bytes at ", descriptor.file_offset,
                                " are outside what a log may change"));
  }
  // LastFileOffset is the size of a file that everything fits into (2.3.1.1). Without that a few
  // bytes of log could have the host fill itself.
  if (descriptor.file_offset + descriptor.length > file_bytes) {
    return Damaged(at, "Descriptor.FileOffset",
                   absl::StrCat(descriptor.length, " bytes at ", descriptor.file_offset,
                                " are past the end of the file, ", file_bytes));
  }
  if (descriptor.file_offset < place.offset + place.length &&
      place.offset < descriptor.file_offset + descriptor.length) {
    return Damaged(at, "Descriptor.FileOffset",
                   absl::StrCat(descriptor.file_offset, " is within the log itself"));
  }
  return absl::OkStatus();
}

// Goes through one entry; only checks it when `target` is null.
Task<absl::Status> ReplayEntry(Storage& source, const LogPlace& place, const LogEntryPlace& entry,
                               uint64_t file_bytes, Storage* target) {
  LogReader descriptors(source, place);
  LogReader data(source, place);
  uint64_t data_sector = entry.sector + DescriptorSectors(entry.header.descriptor_count);
  for (uint64_t i = 0; i < entry.header.descriptor_count; ++i) {
    const uint64_t sector = entry.sector + DescriptorSector(i);
    if (!descriptors.Has(sector)) {
      absl::Status status = co_await descriptors.Fetch(sector);
      CO_RETURN_IF_ERROR(status);
    }
    const uint64_t at =
        place.offset + sector % descriptors.sectors() * kLogSectorBytes + DescriptorByte(i);
    LogDescriptor descriptor;
    if (!ParseLogDescriptor(descriptors.sector(sector).data() + DescriptorByte(i),
                            entry.header.sequence_number, descriptor)) {
      co_return Damaged(at, "Descriptor", "changed while it was read");
    }
    CO_RETURN_IF_ERROR(CheckTarget(descriptor, place, file_bytes, at));
    if (target == nullptr) continue;
    absl::Status status;
    if (descriptor.zero) {
      status = co_await WriteZeroes(*target, descriptor.file_offset, descriptor.length);
    } else {
      if (!data.Has(data_sector)) {
        status = co_await data.Fetch(data_sector);
        CO_RETURN_IF_ERROR(status);
      }
      std::array<uint8_t, kLogSectorBytes> page;
      RestoreDataSector(descriptor, data.sector(data_sector), page);
      ++data_sector;
      status = co_await WriteAt(*target, descriptor.file_offset, std::span<const uint8_t>(page));
    }
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> ReplayLog(Storage& source, const LogPlace& place, Storage& target) {
  absl::StatusOr<std::vector<LogEntryPlace>> sequence = co_await FindActiveSequence(source, place);
  CO_RETURN_IF_ERROR(sequence.status());
  const LogEntryHeader& head = sequence->back().header;
  if (source.size() < head.flushed_file_offset) {
    co_return Damaged(place.offset + sequence->back().sector * kLogSectorBytes + 48,
                      "LogEntry.FlushedFileOffset",
                      absl::StrCat("the file has ", source.size(), " bytes of ",
                                   head.flushed_file_offset, ": it was truncated"));
  }
  uint64_t file_bytes = source.size();
  for (const LogEntryPlace& entry : *sequence) {
    file_bytes = std::max(file_bytes, entry.header.last_file_offset);
  }
  // Looked through before anything is written.
  Storage* const passes[] = {nullptr, &target};
  for (Storage* to : passes) {
    // At its size first: what is zeroed then takes no room of the host's.
    if (to != nullptr && to->size() < file_bytes) {
      absl::Status status = co_await to->Resize(file_bytes);
      CO_RETURN_IF_ERROR(status);
    }
    for (const LogEntryPlace& entry : *sequence) {
      absl::Status status = co_await ReplayEntry(source, place, entry, file_bytes, to);
      CO_RETURN_IF_ERROR(status);
    }
  }
  co_return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
