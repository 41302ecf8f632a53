#include "disk/vhdx/log_replay.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/format.h"

namespace bothy::disk::vhdx {
namespace {

absl::Status CheckTarget(const LogDescriptor& descriptor, const LogPlace& place, uint64_t at) {
  // The file identifier and the headers are never written through the log (2.2.2).
  if (descriptor.file_offset < kRegionTableOffsets[0] || descriptor.file_offset > kMaxFileBytes ||
      descriptor.length > kMaxFileBytes - descriptor.file_offset) {
    return Damaged(at, "Descriptor.FileOffset",
                   absl::StrCat(descriptor.length, " bytes at ", descriptor.file_offset,
                                " are outside what a log may change"));
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
                               Storage* target) {
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
    CO_RETURN_IF_ERROR(CheckTarget(descriptor, place, at));
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
  // Looked through before anything is written.
  Storage* const passes[] = {nullptr, &target};
  for (Storage* to : passes) {
    for (const LogEntryPlace& entry : *sequence) {
      absl::Status status = co_await ReplayEntry(source, place, entry, to);
      CO_RETURN_IF_ERROR(status);
    }
  }
  if (target.size() < head.last_file_offset) {
    absl::Status status = co_await target.Resize(head.last_file_offset);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
