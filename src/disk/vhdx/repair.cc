// Repair: puts right what Check finds, where that is possible.
#include <algorithm>

#include "disk/damage.h"
#include "disk/vhdx/image_editor.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

// Blocks that the file's end cuts through keep what is there; zeros stand for the rest.
Task<absl::Status> ExtendFile(ImageEditor& editor) {
  const BatLayout& bat = editor.image().bat();
  const BatExaminer examiner(editor.image(), editor.storage().size());
  uint64_t end = editor.storage().size();
  for (uint64_t index = 0; index < bat.entries(); ++index) {
    std::optional<BatEntry> entry = editor.FindEntry(index);
    if (!entry.has_value()) {
      absl::StatusOr<BatEntry> loaded = co_await editor.Entry(index);
      CO_ASSIGN_OR_RETURN(entry, loaded);
    }
    if (examiner.FindFault(index, *entry, BatEntry()) != EntryFault::kCutShort) continue;
    end = std::max(end, entry->file_offset() + examiner.LengthOf(index));
  }
  if (end == editor.storage().size()) co_return absl::OkStatus();
  absl::Status status = co_await editor.storage().Resize(end);
  CO_RETURN_IF_ERROR(status);
  editor.tables().set_structures_end(end);
  co_return absl::OkStatus();
}

class Mender {
 public:
  // The file had `file_bytes` before it was extended.
  Mender(ImageEditor& editor, uint64_t file_bytes)
      : editor_(editor), examiner_(editor.image(), file_bytes, editor.storage().size()) {}

  Task<absl::Status> MendBat(const Progress& progress);
  [[nodiscard]] const SpaceMap& space() { return examiner_.space(); }
  // Whether a block was given up: what it was may lie where nothing refers to.
  [[nodiscard]] bool dropped() const { return dropped_; }

 private:
  // The entry without that fault, which it has.
  BatEntry Without(EntryFault fault, uint64_t index, BatEntry entry);
  // Without all that can be told by itself.
  BatEntry WithoutFaults(uint64_t index, BatEntry entry, BatEntry bitmap_entry);
  // What an entry that shares its space shall be instead.
  Task<absl::StatusOr<BatEntry>> Separate(uint64_t index, BatEntry entry);

  ImageEditor& editor_;
  BatExaminer examiner_;
  bool dropped_ = false;
};

BatEntry Mender::Without(EntryFault fault, uint64_t index, BatEntry entry) {
  switch (fault) {
    case EntryFault::kNone:
      return entry;
    case EntryFault::kReserved:
      return entry.WithoutReservedBits();
    case EntryFault::kNoBitmap:
      // Which sectors were written here isn't known any more; those that were are here.
      return BatEntry(BlockState::kFullyPresent, entry.file_offset());
    case EntryFault::kState:
    case EntryFault::kStrayBitmap:
    case EntryFault::kOutside:
    case EntryFault::kCutShort:
    case EntryFault::kShared:
      break;
  }
  dropped_ = true;
  return editor_.image().bat().IsBitmapIndex(index) ? BatEntry() : BatEntry(BlockState::kZero, 0);
}

BatEntry Mender::WithoutFaults(uint64_t index, BatEntry entry, BatEntry bitmap_entry) {
  // One fault may hide another. Each step leaves an entry that hasn't its fault any more, nor one
  // that comes before it.
  while (true) {
    const EntryFault fault = examiner_.FindFault(index, entry, bitmap_entry);
    if (fault == EntryFault::kNone) return entry;
    entry = Without(fault, index, entry);
  }
}

// Two blocks in one place: both keep what is there, the second one in a copy. Not those that lie in
// a table.
Task<absl::StatusOr<BatEntry>> Mender::Separate(uint64_t index, BatEntry entry) {
  Storage& storage = editor_.storage();
  const uint64_t length = examiner_.LengthOf(index);
  if (!editor_.image().IsBlockSpace(entry.file_offset(), length)) {
    co_return Without(EntryFault::kShared, index, entry);
  }
  // Structures may end past the file's end.
  const uint64_t to = RoundUp(std::max(storage.size(), examiner_.space().end()), kMiB);
  absl::Status status = co_await storage.Resize(to + length);
  CO_RETURN_IF_ERROR(status);
  editor_.tables().set_structures_end(to + length);
  std::vector<uint8_t> bytes(kMiB);
  for (uint64_t at = 0; at < length; at += bytes.size()) {
    status = co_await ReadAt(storage, entry.file_offset() + at, std::span<uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
    status = co_await WriteAt(storage, to + at, std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
  }
  examiner_.space().Claim(to, length);
  co_return BatEntry(entry.state(), to);
}

Task<absl::Status> Mender::MendBat(const Progress& progress) {
  const BatLayout& bat = editor_.image().bat();
  const bool has_parent = editor_.image().parameters().has_parent;
  for (uint64_t index = 0; index < bat.entries(); ++index) {
    if (progress && index % (uint64_t{256} * kBatEntriesPerPage) == 0) {
      progress(index * kBatEntryBytes, bat.bytes());
    }
    std::optional<BatEntry> entry = editor_.FindEntry(index);
    if (!entry.has_value()) {
      absl::StatusOr<BatEntry> loaded = co_await editor_.Entry(index);
      CO_ASSIGN_OR_RETURN(entry, loaded);
    }
    if (entry->bits() == 0) continue;
    BatEntry bitmap_entry;
    if (has_parent && entry->state() == BlockState::kPartiallyPresent) {
      absl::StatusOr<BatEntry> other =
          co_await editor_.Entry(bat.BitmapIndex(index / (bat.chunk_ratio() + 1)));
      CO_ASSIGN_OR_RETURN(bitmap_entry, other);
    }
    BatEntry mended = WithoutFaults(index, *entry, bitmap_entry);
    if (examiner_.Examine(index, mended, bitmap_entry) == EntryFault::kShared) {
      absl::StatusOr<BatEntry> separate = co_await Separate(index, mended);
      CO_ASSIGN_OR_RETURN(mended, separate);
    }
    if (mended == *entry) continue;
    absl::Status status = co_await editor_.SetEntry(index, mended);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Mend(ImageEditor& editor, const CheckReport& report, const Progress& progress) {
  // This restores both copies of the header. Children shall only notice when blocks were mended.
  absl::Status status = co_await editor.Begin(report.sound() ? ImageEditor::Changes::kLayout
                                                             : ImageEditor::Changes::kContents);
  CO_RETURN_IF_ERROR(status);
  status = co_await editor.WriteRegions(editor.image().regions());
  CO_RETURN_IF_ERROR(status);
  const uint64_t file_bytes = editor.storage().size();
  if (!report.sound()) {
    status = co_await ExtendFile(editor);
    CO_RETURN_IF_ERROR(status);
  }
  Mender mender(editor, file_bytes);
  status = co_await mender.MendBat(progress);
  CO_RETURN_IF_ERROR(status);
  status = co_await editor.Finish();
  CO_RETURN_IF_ERROR(status);
  // The next repair gives back what is left then, unless somebody saves it before.
  if (mender.dropped()) co_return absl::OkStatus();
  // A fixed image keeps its room (2.6.2.1, LeaveBlockAllocated).
  const DiskParameters& parameters = editor.image().parameters();
  if (parameters.leave_block_allocated && !parameters.has_parent) co_return absl::OkStatus();
  co_return co_await editor.GiveBack(mender.space());
}

}  // namespace

Task<absl::StatusOr<CheckReport>> Repair(Storage& storage, Progress progress) {
  absl::StatusOr<CheckReport> report = co_await Check(storage, progress);
  if (!report.ok() || report->clean()) co_return report;
  absl::StatusOr<std::unique_ptr<ImageEditor>> editor = co_await ImageEditor::Open(storage);
  if (!editor.ok()) {
    // The report says why, unless the storage failed.
    if (IsAboutContents(editor.status())) co_return report;
    co_return editor.status();
  }
  absl::Status status = co_await Mend(**editor, *report, progress);
  absl::Status idle = co_await (*editor)->tables().WaitUntilIdle();
  CO_RETURN_IF_ERROR(status);
  co_return report;
}

}  // namespace bothy::disk::vhdx
