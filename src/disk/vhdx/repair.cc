// Repair: puts right what Check finds, where that is possible.
#include "disk/damage.h"
#include "disk/vhdx/image_editor.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

// Gives the block a copy of its own of what it shares with another.
Task<absl::StatusOr<BatEntry>> CopyBlock(ImageEditor& editor, BatEntry entry, uint64_t length) {
  Storage& storage = editor.storage();
  const uint64_t to = RoundUp(storage.size(), kMiB);
  absl::Status status = co_await storage.Resize(to + length);
  CO_RETURN_IF_ERROR(status);
  editor.tables().set_structures_end(to + length);
  std::vector<uint8_t> bytes(kMiB);
  for (uint64_t at = 0; at < length; at += bytes.size()) {
    status = co_await ReadAt(storage, entry.file_offset() + at, std::span<uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
    status = co_await WriteAt(storage, to + at, std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
  }
  co_return BatEntry(entry.state(), to);
}

// What the entry shall be instead.
Task<absl::StatusOr<BatEntry>> MendEntry(ImageEditor& editor, uint64_t index, BatEntry entry,
                                         EntryFault fault) {
  const bool bitmap = editor.image().bat().IsBitmapIndex(index);
  switch (fault) {
    case EntryFault::kNone:
      break;
    case EntryFault::kShared: {
      // Two blocks in one place: both keep what is there. Not those that lie in a table.
      const uint64_t length = bitmap ? kSectorBitmapBytes : editor.image().parameters().block_bytes;
      if (!editor.image().IsBlockSpace(entry.file_offset(), length)) break;
      co_return co_await CopyBlock(editor, entry, length);
    }
    case EntryFault::kNoBitmap:
      // Which sectors were written here isn't known any more; those that were are here.
      co_return BatEntry(BlockState::kFullyPresent, entry.file_offset());
    case EntryFault::kState:
    case EntryFault::kReserved:
    case EntryFault::kOutside:
    case EntryFault::kStrayBitmap:
      break;
  }
  co_return bitmap ? BatEntry() : BatEntry(BlockState::kZero, 0);
}

Task<absl::Status> MendBat(ImageEditor& editor, BatExaminer& examiner, const Progress& progress) {
  const BatLayout& bat = editor.image().bat();
  const bool has_parent = editor.image().parameters().has_parent;
  for (uint64_t index = 0; index < bat.entries(); ++index) {
    if (progress && index % (uint64_t{256} * kBatEntriesPerPage) == 0) {
      progress(index * kBatEntryBytes, bat.bytes());
    }
    absl::StatusOr<BatEntry> entry = co_await editor.Entry(index);
    CO_RETURN_IF_ERROR(entry.status());
    if (entry->bits() == 0) continue;
    BatEntry bitmap_entry;
    if (has_parent && entry->state() == BlockState::kPartiallyPresent) {
      absl::StatusOr<BatEntry> other =
          co_await editor.Entry(bat.BitmapIndex(index / (bat.chunk_ratio() + 1)));
      CO_ASSIGN_OR_RETURN(bitmap_entry, other);
    }
    const EntryFault fault = examiner.Examine(index, *entry, bitmap_entry);
    if (fault == EntryFault::kNone) continue;
    absl::StatusOr<BatEntry> mended = co_await MendEntry(editor, index, *entry, fault);
    CO_RETURN_IF_ERROR(mended.status());
    if (mended->present() && fault == EntryFault::kShared) {
      examiner.space().Claim(mended->file_offset(), bat.IsBitmapIndex(index)
                                                        ? kSectorBitmapBytes
                                                        : editor.image().parameters().block_bytes);
    }
    absl::Status status = co_await editor.SetEntry(index, *mended);
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
  BatExaminer examiner(editor.image(), editor.storage().size());
  status = co_await MendBat(editor, examiner, progress);
  CO_RETURN_IF_ERROR(status);
  status = co_await editor.Finish();
  CO_RETURN_IF_ERROR(status);
  // A fixed image keeps its room (2.6.2.1, LeaveBlockAllocated).
  const DiskParameters& parameters = editor.image().parameters();
  if (parameters.leave_block_allocated && !parameters.has_parent) co_return absl::OkStatus();
  co_return co_await editor.GiveBack(examiner.space());
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
