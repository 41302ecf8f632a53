// Check: looks at everything an image says of itself.
#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/bat_examiner.h"
#include "disk/vhdx/image_file.h"
#include "disk/vhdx/metadata_store.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

// How often progress is told, in pages of the BAT.
constexpr uint64_t kPagesBetweenProgress = 256;

Severity SeverityOf(EntryFault fault) {
  return fault == EntryFault::kStrayBitmap ? Severity::kWarning : Severity::kError;
}

Task<absl::Status> ExamineBat(ImageFile& image, BatExaminer& examiner, const Progress& progress,
                              CheckReport& report) {
  MetadataStore tables(image.storage(), image.headers(), 1 << 20);
  const BatLayout& bat = image.bat();
  const bool has_parent = image.parameters().has_parent;
  MetadataStore::PageRef page;
  BatEntry bitmap_entry;
  uint64_t chunk = UINT64_MAX;
  for (uint64_t index = 0; index < bat.entries(); ++index) {
    if (BatLayout::Slot(index) == 0) {
      absl::StatusOr<MetadataStore::PageRef> loaded = co_await tables.Load(bat.PageOffset(index));
      CO_ASSIGN_OR_RETURN(page, loaded);
      if (progress && index / kBatEntriesPerPage % kPagesBetweenProgress == 0) {
        progress(index * kBatEntryBytes, bat.bytes());
      }
    }
    if (has_parent && index / (bat.chunk_ratio() + 1) != chunk) {
      chunk = index / (bat.chunk_ratio() + 1);
      const uint64_t bitmap_index = bat.BitmapIndex(chunk);
      absl::StatusOr<MetadataStore::PageRef> other =
          co_await tables.Load(bat.PageOffset(bitmap_index));
      CO_RETURN_IF_ERROR(other.status());
      bitmap_entry = BatEntry((*other)->Load64(BatLayout::Slot(bitmap_index)));
    }
    const BatEntry entry(page->Load64(BatLayout::Slot(index)));
    const EntryFault fault = examiner.Examine(index, entry, bitmap_entry);
    if (fault == EntryFault::kNone) continue;
    Problem problem;
    problem.severity = SeverityOf(fault);
    problem.offset = bat.EntryOffset(index);
    problem.field = absl::StrCat("BAT[", index, "]");
    problem.message = absl::StrCat(Describe(fault), " (", absl::Hex(entry.bits()), ")");
    problem.repairable = true;
    report.Add(std::move(problem));
  }
  if (progress) progress(bat.bytes(), bat.bytes());
  co_return absl::OkStatus();
}

void AddRepairable(CheckReport& report, Problem problem) {
  problem.repairable = true;
  report.Add(std::move(problem));
}

}  // namespace

Task<absl::StatusOr<CheckReport>> Check(Storage& storage, Progress progress) {
  CheckReport report;
  report.file_bytes = storage.size();
  absl::StatusOr<std::unique_ptr<ImageFile>> opened =
      co_await ImageFile::Open(storage, ImageFile::Mode::kReadOnly);
  if (!opened.ok()) {
    if (!IsAboutContents(opened.status())) co_return opened.status();
    report.Add(ToProblem(opened.status()));
    co_return report;
  }
  ImageFile& image = **opened;
  const absl::Status& header_copy = image.headers().copy_status();
  if (!header_copy.ok()) AddRepairable(report, ToProblem(header_copy, Severity::kWarning));
  const absl::Status& region_copy = image.region_copy_status();
  if (!region_copy.ok()) AddRepairable(report, ToProblem(region_copy, Severity::kWarning));
  if (image.log_replayed()) {
    Problem problem;
    problem.severity = Severity::kNote;
    problem.offset = image.headers().current().log_offset;
    problem.field = "Log";
    problem.message = "in use: the image wasn't closed, the next opening replays it";
    AddRepairable(report, std::move(problem));
  }

  const uint64_t file_bytes = image.storage().size();
  BatExaminer examiner(image, file_bytes);
  absl::Status status = co_await ExamineBat(image, examiner, progress, report);
  CO_RETURN_IF_ERROR(status);
  report.blocks_total = image.bat().payload_blocks();
  report.blocks_allocated = examiner.blocks_allocated();
  report.block_size_bytes = image.parameters().block_bytes;
  report.allocated_bytes = examiner.allocated_bytes();
  // Structures may be said to end past a file's end; a last part of a MiB is nobody's.
  const uint64_t whole = RoundDown(file_bytes, kMiB);
  for (uint64_t at = 0; at < whole;) {
    const SpaceMap::Run run = examiner.space().FindFree(at, whole);
    if (run.length == 0) break;
    report.leaked_bytes += run.length;
    at = run.offset + run.length;
  }
  if (report.leaked_bytes > 0) {
    Problem problem;
    problem.severity = Severity::kNote;
    problem.field = "file";
    problem.message = absl::StrCat(report.leaked_bytes, " bytes that nothing refers to");
    AddRepairable(report, std::move(problem));
  }
  co_return report;
}

}  // namespace bothy::disk::vhdx
