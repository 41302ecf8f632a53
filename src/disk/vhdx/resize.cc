// Resize: grows and shrinks an image.
//
// What lies past the disk's end, in the BAT as in the last block, means nothing until the size says
// otherwise: it is prepared before, or cleared after, without the log. The size itself, the page of
// the BAT that has entries of both sorts, and the regions when the BAT moved, change in one log
// entry; entries past the end that were in the BAT already are cleared in it or one before.
//
// What a differencing image gains reads as zero, not as what its parent has there: new blocks are
// ZERO as far as the parent reaches, and the last block of before gets zeros of its own.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/damage.h"
#include "disk/data_survey.h"
#include "disk/vhdx/bat_examiner.h"
#include "disk/vhdx/image_editor.h"
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kCopyBytes = kMiB;
// How often the way through the BAT is told, in entries.
constexpr uint64_t kEntriesBetweenProgress = uint64_t{256} * kBatEntriesPerPage;

class Resizer {
 public:
  Resizer(ImageEditor& editor, const ResizeOptions& options)
      : editor_(editor), options_(options), before_(editor.image().parameters()), after_(before_) {
    after_.size_bytes = options.size_bytes;
  }
  // DataLoss when the BAT can't be relied on, before anything changes: what is written to a block
  // would go to a table, or to another block.
  Task<absl::Status> RefuseUnlessSound();
  Task<absl::Status> Grow();
  Task<absl::Status> Shrink();
  // Where the last structure or block ends in the file, once RefuseUnlessSound has looked.
  [[nodiscard]] uint64_t structures_end() const { return structures_end_; }

 private:
  Storage& storage() { return editor_.storage(); }
  const BatLayout& bat() { return editor_.image().bat(); }
  Task<absl::Status> MakeRoomForBat();
  Task<absl::Status> ClearEntriesPastEnd();
  Task<absl::Status> ClearEntries(uint64_t begin, uint64_t end);
  Task<absl::Status> WriteNewEntries();
  BatEntry NewEntry(const BatLayout& layout, uint64_t index) const;
  Task<absl::Status> LookAtParent();
  Task<absl::Status> ClearTailOfLastBlock(uint64_t size_bytes);
  Task<absl::Status> WriteBits(uint64_t begin, uint64_t end, uint64_t bitmap_offset, bool here);
  Task<absl::Status> PlaceLastBlock();
  Task<absl::Status> WriteSize();
  Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenUnchanged();
  Task<absl::Status> RefuseIfDataIsCut();

  ImageEditor& editor_;
  const ResizeOptions& options_;
  const DiskParameters before_;
  DiskParameters after_;
  bool moved_ = false;
  uint64_t bat_offset_ = 0;  // of the BAT to be
  uint64_t new_blocks_ = 0;  // where those of a fixed image go
  // Bytes of the disk: before this the parent has something. None is to be seen past the old end.
  uint64_t hidden_end_ = 0;
  uint64_t structures_end_ = 0;
};

Task<absl::Status> Resizer::RefuseUnlessSound() {
  BatExaminer examiner(editor_.image(), storage().size());
  const uint64_t first_past_end = bat().PayloadIndex(bat().payload_blocks());
  BatEntry bitmap_entry;
  for (uint64_t index = 0; index < bat().entries(); ++index) {
    const bool is_bitmap = bat().IsBitmapIndex(index);
    if (index % kEntriesBetweenProgress == 0) {
      if (options_.stop.stop_requested()) co_return NothingChanged();
      if (options_.progress) options_.progress(index * kBatEntryBytes, bat().bytes());
    }
    // Past the disk's end entries mean nothing, and are cleared.
    if (index >= first_past_end && !is_bitmap) continue;
    if (before_.has_parent && index % (bat().chunk_ratio() + 1) == 0) {
      absl::StatusOr<BatEntry> loaded =
          co_await editor_.Entry(bat().BitmapIndex(bat().ChunkOf(bat().BlockOf(index))));
      CO_ASSIGN_OR_RETURN(bitmap_entry, loaded);
    }
    std::optional<BatEntry> entry = editor_.FindEntry(index);
    if (!entry.has_value()) {
      absl::StatusOr<BatEntry> loaded = co_await editor_.Entry(index);
      CO_ASSIGN_OR_RETURN(entry, loaded);
    }
    const EntryFault fault = examiner.Examine(index, *entry, bitmap_entry);
    if (fault == EntryFault::kNone || fault == EntryFault::kStrayBitmap) continue;
    co_return Damaged(bat().EntryOffset(index), absl::StrCat("BAT[", index, "]"),
                      absl::StrCat(Describe(fault), "; repair the image first"));
  }
  structures_end_ = examiner.space().end();
  co_return absl::OkStatus();
}

Task<absl::Status> Resizer::MakeRoomForBat() {
  const Region& region = editor_.image().regions().bat();
  const uint64_t needed = BatLayout(region.offset, after_).bytes();
  bat_offset_ = region.offset;
  if (needed <= region.length) co_return absl::OkStatus();
  moved_ = true;
  bat_offset_ = RoundUp(storage().size(), kMiB);
  const uint64_t end = bat_offset_ + RoundUp(needed, kMiB);
  absl::Status status = co_await storage().Resize(end);
  CO_RETURN_IF_ERROR(status);
  editor_.tables().set_structures_end(end);
  std::vector<uint8_t> bytes;
  const uint64_t used = RoundUp(bat().bytes(), kPageBytes);
  for (uint64_t at = 0; at < used; at += bytes.size()) {
    bytes.resize(std::min(kCopyBytes, used - at));
    status = co_await ReadAt(storage(), region.offset + at, std::span<uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
    // What was changed may be in the log only.
    for (uint64_t page = 0; page < bytes.size(); page += kPageBytes) {
      const MetadataStore::Page* changed = editor_.tables().Find(region.offset + at + page);
      if (changed != nullptr) std::memcpy(bytes.data() + page, changed->bytes.data(), kPageBytes);
    }
    status = co_await WriteAt(storage(), bat_offset_ + at, std::span<const uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

// The entries of a differencing image fill its last chunk, past the disk's end too. They mean
// nothing there, so that whoever shrank the image may have left some; before the size makes
// something of them they are new ones.
Task<absl::Status> Resizer::ClearEntriesPastEnd() {
  const uint64_t begin = bat().PayloadIndex(bat().payload_blocks());
  // The chunk's sector bitmap, which is in use.
  const uint64_t end = bat().entries() - 1;
  if (!before_.has_parent || begin >= end) co_return absl::OkStatus();
  const BatLayout layout(bat_offset_, after_);
  std::vector<uint8_t> bytes((end - begin) * kBatEntryBytes);
  for (uint64_t index = begin; index < end; ++index) {
    StoreLe(bytes.data() + (index - begin) * kBatEntryBytes, NewEntry(layout, index).bits());
  }
  if (!moved_) co_return co_await editor_.Write(layout.EntryOffset(begin), bytes);
  co_return co_await WriteAt(storage(), layout.EntryOffset(begin), std::span<const uint8_t>(bytes));
}

BatEntry Resizer::NewEntry(const BatLayout& layout, uint64_t index) const {
  if (layout.IsBitmapIndex(index)) return {};
  if (before_.has_parent) {
    const bool hides = layout.BlockOf(index) * before_.block_bytes < hidden_end_;
    return hides ? BatEntry(BlockState::kZero, 0) : BatEntry();
  }
  if (!before_.leave_block_allocated) return {};
  const uint64_t first = RoundUp(before_.size_bytes, before_.block_bytes) / before_.block_bytes;
  return BatEntry(BlockState::kFullyPresent,
                  new_blocks_ + (layout.BlockOf(index) - first) * before_.block_bytes);
}

Task<absl::Status> Resizer::WriteNewEntries() {
  const BatLayout layout(bat_offset_, after_);
  const bool fixed = before_.leave_block_allocated && !before_.has_parent;
  if (fixed) {
    new_blocks_ = RoundUp(storage().size(), kMiB);
    const uint64_t end =
        new_blocks_ + (layout.payload_blocks() - bat().payload_blocks()) * before_.block_bytes;
    if (end > kMaxFileBytes) co_return absl::InvalidArgumentError("size_bytes: too big");
    absl::Status status = co_await storage().Resize(end);
    CO_RETURN_IF_ERROR(status);
    status = co_await SubmitAwaiter<Storage>(storage(), Operation::kWriteZeroes, new_blocks_,
                                             end - new_blocks_, std::span<const iovec>(), true);
    CO_RETURN_IF_ERROR(status);
    editor_.tables().set_structures_end(end);
  }
  std::vector<uint8_t> bytes;
  for (uint64_t index = bat().entries(); index < layout.entries();) {
    const uint64_t begin = index;
    // To the end of the page, which may have entries that are in use; then many pages at once.
    const bool shared = begin % kBatEntriesPerPage != 0;
    const uint64_t most =
        shared ? RoundUp(begin, kBatEntriesPerPage) : begin + kCopyBytes / kBatEntryBytes;
    const uint64_t end = std::min(layout.entries(), most);
    bytes.resize((end - begin) * kBatEntryBytes);
    for (; index < end; ++index) {
      StoreLe(bytes.data() + (index - begin) * kBatEntryBytes, NewEntry(layout, index).bits());
    }
    absl::Status status;
    if (shared && !moved_) {
      status = co_await editor_.Write(layout.EntryOffset(begin), bytes);
    } else {
      status =
          co_await WriteAt(storage(), layout.EntryOffset(begin), std::span<const uint8_t>(bytes));
    }
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

// The image as the disk that it is before anything changes.
Task<absl::StatusOr<std::unique_ptr<Disk>>> Resizer::OpenUnchanged() {
  OpenOptions open;
  open.read_only = true;
  open.open_parent = options_.open_parent;
  co_return co_await Open(std::make_unique<BorrowedStorage>(storage()), std::move(open));
}

Task<absl::Status> Resizer::LookAtParent() {
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenUnchanged();
  CO_RETURN_IF_ERROR(disk.status());
  hidden_end_ = std::min((*disk)->parent()->geometry().size_bytes, after_.size_bytes);
  co_return co_await (*disk)->Close();
}

// Says of sectors of one block whether they are in this image, in its chunk's sector bitmap.
Task<absl::Status> Resizer::WriteBits(uint64_t begin, uint64_t end, uint64_t bitmap_offset,
                                      bool here) {
  std::vector<uint8_t> bytes(kPageBytes);
  for (uint64_t bit = begin; bit < end;) {
    const uint64_t next = std::min(end, RoundDown(bit, kBitsPerPage) + kBitsPerPage);
    const uint64_t page_offset =
        bitmap_offset + RoundDown(bit % kSectorsPerBitmapBlock / 8, uint64_t{kPageBytes});
    {
      absl::StatusOr<MetadataStore::PageRef> page = co_await editor_.tables().Load(page_offset);
      CO_RETURN_IF_ERROR(page.status());
      std::memcpy(bytes.data(), (*page)->bytes.data(), kPageBytes);
    }
    const auto first = static_cast<uint32_t>(bit % kBitsPerPage);
    FillBits(std::span(bytes).first<kPageBytes>(), first, first + static_cast<uint32_t>(next - bit),
             here);
    absl::Status status = co_await editor_.Write(page_offset, bytes);
    CO_RETURN_IF_ERROR(status);
    bit = next;
  }
  co_return absl::OkStatus();
}

// Nothing is left of what the last block holds past `size_bytes`: zeros of its own.
Task<absl::Status> Resizer::ClearTailOfLastBlock(uint64_t size_bytes) {
  const uint64_t within = size_bytes % before_.block_bytes;
  if (within == 0) co_return absl::OkStatus();
  const uint64_t block = size_bytes / before_.block_bytes;
  absl::StatusOr<BatEntry> entry = co_await editor_.Entry(bat().PayloadIndex(block));
  CO_RETURN_IF_ERROR(entry.status());
  if (!entry->present()) co_return absl::OkStatus();
  absl::Status status =
      co_await WriteZeroes(storage(), entry->file_offset() + within, before_.block_bytes - within);
  CO_RETURN_IF_ERROR(status);
  if (entry->state() != BlockState::kPartiallyPresent) co_return absl::OkStatus();
  absl::StatusOr<BatEntry> bitmap = co_await editor_.Entry(bat().BitmapIndex(bat().ChunkOf(block)));
  CO_RETURN_IF_ERROR(bitmap.status());
  const uint64_t sector = before_.logical_sector_bytes;
  co_return co_await WriteBits(size_bytes / sector, (block + 1) * (before_.block_bytes / sector),
                               bitmap->file_offset(), true);
}

// When the last block is all the parent's, past the old end too: it gets room, which is zero, and
// keeps its parent's sectors before that end.
Task<absl::Status> Resizer::PlaceLastBlock() {
  const uint64_t size = before_.size_bytes;
  if (size % before_.block_bytes == 0 || hidden_end_ <= size) co_return absl::OkStatus();
  const uint64_t block = size / before_.block_bytes;
  const uint64_t bitmap_index = bat().BitmapIndex(bat().ChunkOf(block));
  absl::StatusOr<BatEntry> entry = co_await editor_.Entry(bat().PayloadIndex(block));
  CO_RETURN_IF_ERROR(entry.status());
  if (entry->state() != BlockState::kNotPresent) co_return absl::OkStatus();
  absl::StatusOr<BatEntry> bitmap = co_await editor_.Entry(bitmap_index);
  CO_RETURN_IF_ERROR(bitmap.status());
  const uint64_t data_offset = RoundUp(storage().size(), kMiB);
  uint64_t end = data_offset + before_.block_bytes;
  uint64_t bitmap_offset = bitmap->file_offset();
  if (!bitmap->present()) {
    bitmap_offset = end;
    end += kMiB;
  }
  if (end > kMaxFileBytes) co_return absl::ResourceExhaustedError("size_bytes: too big");
  absl::Status status = co_await storage().Resize(end);
  CO_RETURN_IF_ERROR(status);
  editor_.tables().set_structures_end(end);
  // Which sectors are there, before it is said that some are: those are many pages at worst.
  const uint64_t sector = before_.logical_sector_bytes;
  const uint64_t sectors = before_.block_bytes / sector;
  status = co_await WriteBits(block * sectors, size / sector, bitmap_offset, false);
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteBits(size / sector, (block + 1) * sectors, bitmap_offset, true);
  if (status.ok()) status = co_await editor_.tables().Commit();
  CO_RETURN_IF_ERROR(status);
  if (!bitmap->present()) {
    status =
        co_await editor_.SetEntry(bitmap_index, BatEntry(BlockState::kFullyPresent, bitmap_offset));
    CO_RETURN_IF_ERROR(status);
  }
  co_return co_await editor_.SetEntry(bat().PayloadIndex(block),
                                      BatEntry(BlockState::kPartiallyPresent, data_offset));
}

Task<absl::Status> Resizer::WriteSize() {
  uint8_t bytes[8];
  StoreLe(bytes, after_.size_bytes);
  const std::span<const uint8_t> span(bytes);
  const ImageFile& image = editor_.image();
  co_return co_await editor_.Write(
      image.regions().metadata().offset + image.metadata().Find(kVirtualDiskSizeItem)->offset,
      span);
}

Task<absl::Status> Resizer::Grow() {
  absl::Status status;
  if (before_.has_parent) {
    status = co_await LookAtParent();
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await editor_.Begin(ImageEditor::Changes::kLayout);
  CO_RETURN_IF_ERROR(status);
  status = co_await ClearTailOfLastBlock(before_.size_bytes);
  CO_RETURN_IF_ERROR(status);
  status = co_await PlaceLastBlock();
  CO_RETURN_IF_ERROR(status);
  status = co_await editor_.tables().Commit();
  CO_RETURN_IF_ERROR(status);
  status = co_await MakeRoomForBat();
  CO_RETURN_IF_ERROR(status);
  status = co_await ClearEntriesPastEnd();
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteNewEntries();
  CO_RETURN_IF_ERROR(status);
  if (moved_) {
    RegionTable regions = editor_.image().regions();
    Region& region = *regions.Find(kBatRegion);
    region.offset = bat_offset_;
    region.length = static_cast<uint32_t>(RoundUp(BatLayout(bat_offset_, after_).bytes(), kMiB));
    status = co_await editor_.WriteRegions(regions);
    CO_RETURN_IF_ERROR(status);
  }
  // Until here the disk holds what it held, and its children may go by it: they are told now that
  // all the room there has to be is there.
  status = co_await editor_.tables().Commit();
  CO_RETURN_IF_ERROR(status);
  status = co_await editor_.Begin(ImageEditor::Changes::kContents, options_.next_linkage);
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteSize();
  CO_RETURN_IF_ERROR(status);
  status = co_await editor_.Finish();
  CO_RETURN_IF_ERROR(status);
  if (!moved_) co_return absl::OkStatus();
  const Region& old = editor_.image().regions().bat();
  status = co_await WriteZeroes(storage(), old.offset, old.length);
  CO_RETURN_IF_ERROR(status);
  co_return co_await Flush(storage());
}

Task<absl::Status> Resizer::RefuseIfDataIsCut() {
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenUnchanged();
  CO_RETURN_IF_ERROR(disk.status());
  SurveyOptions survey = {.progress = options_.progress, .stop = options_.stop};
  absl::Status status = co_await RefuseToCutData(**disk, after_.size_bytes, std::move(survey));
  absl::Status closed = co_await (*disk)->Close();
  co_return status.ok() ? closed : status;
}

// A page at a time: there may be millions.
Task<absl::Status> Resizer::ClearEntries(uint64_t begin, uint64_t end) {
  const std::vector<uint8_t> none(kPageBytes);
  for (uint64_t index = begin; index < end;) {
    const uint64_t next =
        std::min(end, RoundDown(index, uint64_t{kBatEntriesPerPage}) + kBatEntriesPerPage);
    const auto bytes = std::span(none).first((next - index) * kBatEntryBytes);
    absl::Status status = co_await editor_.Write(bat().EntryOffset(index), bytes);
    CO_RETURN_IF_ERROR(status);
    index = next;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Resizer::Shrink() {
  absl::Status status;
  if (!options_.discard_data) {
    status = co_await RefuseIfDataIsCut();
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await editor_.Begin(ImageEditor::Changes::kContents, options_.next_linkage);
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteSize();
  CO_RETURN_IF_ERROR(status);
  status = co_await editor_.tables().Commit();
  CO_RETURN_IF_ERROR(status);
  status = co_await ClearTailOfLastBlock(after_.size_bytes);
  CO_RETURN_IF_ERROR(status);
  // What the BAT still says of blocks past the end. With a parent it keeps their entries, up to the
  // sector bitmap of the last chunk.
  const BatLayout layout(bat_offset_, after_);
  const uint64_t first = layout.PayloadIndex(layout.payload_blocks());
  if (before_.has_parent) {
    status = co_await ClearEntries(first, layout.entries() - 1);
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await ClearEntries(layout.entries(), bat().entries());
  CO_RETURN_IF_ERROR(status);
  co_return co_await editor_.Finish();
}

// After a resize that failed: the file is as long as before again, when nothing lies past that.
Task<absl::Status> CutBack(Storage& storage, uint64_t file_bytes, const ResizeOptions& options) {
  absl::StatusOr<std::unique_ptr<ImageEditor>> editor = co_await ImageEditor::Open(storage);
  CO_RETURN_IF_ERROR(editor.status());
  Resizer resizer(**editor, options);
  absl::Status status = co_await resizer.RefuseUnlessSound();
  CO_RETURN_IF_ERROR(status);
  if (resizer.structures_end() > file_bytes) co_return absl::OkStatus();
  status = co_await storage.Resize(file_bytes);
  CO_RETURN_IF_ERROR(status);
  co_return co_await Flush(storage);
}

// Gives back what a resize that failed took and nothing refers to, as on a full host. A fixed image
// keeps its room in a repair (2.6.2.1, LeaveBlockAllocated), but not what it hadn't before.
Task<absl::Status> GiveBack(Storage& storage, uint64_t file_bytes, const ResizeOptions& options) {
  if (storage.size() <= file_bytes) co_return absl::OkStatus();
  ResizeOptions quiet = options;
  quiet.stop = {};
  quiet.progress = nullptr;
  absl::Status status = co_await CutBack(storage, file_bytes, quiet);
  CO_RETURN_IF_ERROR(status);
  absl::StatusOr<CheckReport> report = co_await Repair(storage);
  co_return report.status();
}

}  // namespace

Task<absl::Status> Resize(Storage& storage, const ResizeOptions& options) {
  const uint64_t old_file_bytes = storage.size();
  absl::Status status;
  {
    absl::StatusOr<std::unique_ptr<ImageEditor>> editor = co_await ImageEditor::Open(storage);
    if (!editor.ok()) co_return WithContext(editor.status(), storage.path());
    const DiskParameters& parameters = (*editor)->image().parameters();
    if (options.size_bytes == 0 || options.size_bytes > kMaxDiskBytes ||
        options.size_bytes % parameters.logical_sector_bytes != 0) {
      co_return absl::InvalidArgumentError(
          absl::StrCat("size_bytes: ", options.size_bytes,
                       " isn't whole sectors, at least one, at most 64 TiB"));
    }
    if (options.size_bytes == parameters.size_bytes) co_return absl::OkStatus();
    Resizer resizer(**editor, options);
    const bool grows = options.size_bytes > parameters.size_bytes;
    status = co_await resizer.RefuseUnlessSound();
    if (status.ok() && grows) {
      status = co_await resizer.Grow();
    } else if (status.ok()) {
      status = co_await resizer.Shrink();
    }
    absl::Status idle = co_await (*editor)->tables().WaitUntilIdle();
    if (grows && status.ok()) co_return status;
  }
  if (!status.ok()) {
    absl::Status given_back = co_await GiveBack(storage, old_file_bytes, options);
    // The image is good all the same, and what went wrong first is what there is to tell.
    static_cast<void>(given_back);
    co_return WithContext(status, storage.path());
  }
  // The blocks that were cut off, back to the host.
  absl::StatusOr<CheckReport> report = co_await Repair(storage, options.progress);
  co_return report.status();
}

}  // namespace bothy::disk::vhdx
