#include "disk/vhdx/vhdx_disk.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "disk/buffers.h"
#include "disk/damage.h"
#include "disk/vhdx/sector_bitmap.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(std::unique_ptr<Storage> storage,
                                                 OpenOptions options) {
  return VhdxDisk::Open(std::move(storage), std::move(options));
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> VhdxDisk::Open(std::unique_ptr<Storage> storage,
                                                           OpenOptions options) {
  const std::string path = storage->path();
  if (!options.read_only && storage->read_only()) {
    co_return absl::PermissionDeniedError(absl::StrCat(path, ": opened read-only"));
  }
  const auto mode = options.read_only ? ImageFile::Mode::kReadOnly : ImageFile::Mode::kWritable;
  auto file = std::make_unique<FlushTrackingStorage>(*storage);
  absl::StatusOr<std::unique_ptr<ImageFile>> image = co_await ImageFile::Open(*file, mode);
  if (!image.ok()) co_return WithContext(image.status(), path);
  std::unique_ptr<VhdxDisk> disk(
      new VhdxDisk(std::move(storage), std::move(file), *std::move(image), std::move(options)));
  if (disk->has_parent() && !disk->options_.without_parent) {
    absl::Status status = co_await disk->OpenParent();
    CO_RETURN_IF_ERROR(status);
  }
  co_return std::unique_ptr<Disk>(std::move(disk));
}

VhdxDisk::VhdxDisk(std::unique_ptr<Storage> storage, std::unique_ptr<FlushTrackingStorage> file,
                   std::unique_ptr<ImageFile> image, OpenOptions options)
    : owned_storage_(std::move(storage)),
      file_(std::move(file)),
      image_(std::move(image)),
      storage_(image_->storage()),
      options_(std::move(options)),
      block_bytes_(image_->parameters().block_bytes),
      block_shift_(static_cast<uint32_t>(std::countr_zero(block_bytes_))),
      sector_shift_(
          static_cast<uint32_t>(std::countr_zero(image_->parameters().logical_sector_bytes))),
      tables_(storage_, image_->headers(), options_.cache_bytes),
      space_(storage_, tables_, epochs_, image_->parameters().block_bytes,
             image_->structures_end()) {
  const DiskParameters& parameters = image_->parameters();
  geometry_.size_bytes = parameters.size_bytes;
  geometry_.logical_sector_bytes = parameters.logical_sector_bytes;
  geometry_.physical_sector_bytes = parameters.physical_sector_bytes;
  geometry_.read_only = options_.read_only;
  // Parts of blocks are given back as holes of the host's file. A fixed image keeps its space.
  if (!keeps_space() && !geometry_.read_only) {
    geometry_.discard_granularity_bytes =
        std::max(file_->physical_block_bytes(), parameters.logical_sector_bytes);
  }
  tables_.set_on_durable([this] { space_.Poll(); });
}

VhdxDisk::~VhdxDisk() { CHECK(idle_forwarded_.size() == forwarded_.size()); }

// --- Parent ---

Task<absl::Status> VhdxDisk::OpenParent() {
  if (!options_.open_parent) {
    co_return absl::FailedPreconditionError(
        absl::StrCat(file_->path(), ": a differencing image, opened without its parent"));
  }
  absl::StatusOr<std::unique_ptr<Disk>> parent =
      co_await options_.open_parent(image_->locator().Reference(file_->path()));
  CO_RETURN_IF_ERROR(parent.status());
  absl::Status status = CheckParent(**parent);
  if (!status.ok()) {
    absl::Status closed = co_await (*parent)->Close();
    co_return WithContext(status, file_->path());
  }
  parent_ = *std::move(parent);
  parent_bytes_ = parent_->geometry().size_bytes;
  co_return absl::OkStatus();
}

absl::Status VhdxDisk::CheckParent(const Disk& parent) const {
  if (parent.geometry().logical_sector_bytes != geometry_.logical_sector_bytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the parent ", parent.path(), " has sectors of ", parent.geometry().logical_sector_bytes,
        " bytes instead of ", geometry_.logical_sector_bytes));
  }
  absl::StatusOr<std::vector<Guid>> linkages = image_->locator().Linkages();
  RETURN_IF_ERROR(linkages.status());
  const std::optional<Guid> found = parent.linkage();
  for (const Guid& linkage : *linkages) {
    if (found == linkage) return absl::OkStatus();
  }
  const auto spell = [](std::string* out, const Guid& guid) { out->append(guid.ToString()); };
  return absl::FailedPreconditionError(
      absl::StrCat("the parent ", parent.path(), " was changed or is another disk: it is ",
                   found.has_value() ? found->ToString() : "of a format without identity",
                   " instead of ", absl::StrJoin(*linkages, " or ", spell)));
}

// --- Tables ---

uint64_t VhdxDisk::BlockEnd(uint64_t offset) const {
  return std::min((BlockOf(offset) + 1) << block_shift_, geometry_.size_bytes);
}

Task<absl::StatusOr<MetadataStore::PageRef>> VhdxDisk::LoadBatPage(uint64_t index) {
  return tables_.Load(bat().PageOffset(index));
}

bool VhdxDisk::IsSound(BatEntry entry) const {
  return !entry.reserved_bits() && entry.file_offset() >= kHeaderSectionBytes &&
         entry.file_offset() <= space_.file_bytes() &&
         block_bytes_ <= space_.file_bytes() - entry.file_offset() &&
         image_->IsBlockSpace(entry.file_offset(), block_bytes_);
}

absl::Status VhdxDisk::CheckEntry(uint64_t index, BatEntry entry) const {
  const auto field = [index](const char* name) { return absl::StrCat("BAT[", index, "].", name); };
  const uint64_t at = bat().EntryOffset(index);
  switch (entry.state()) {
    case BlockState::kNotPresent:
    case BlockState::kUndefined:
    case BlockState::kZero:
    case BlockState::kUnmapped:
      return absl::OkStatus();
    case BlockState::kPartiallyPresent:
      if (!has_parent()) {
        return Damaged(at, field("State"), "partially present, in an image without a parent");
      }
      break;
    case BlockState::kFullyPresent:
      break;
    default:
      return Damaged(at, field("State"),
                     absl::StrCat(static_cast<uint32_t>(entry.state()), " isn't a state"));
  }
  if (IsSound(entry)) return absl::OkStatus();
  if (entry.reserved_bits()) return Damaged(at, field("Reserved"), "not 0");
  return Damaged(at, field("FileOffsetMB"),
                 absl::StrCat("a block at ", entry.file_offset(), " of a file of ",
                              space_.file_bytes(), " bytes: outside it or within its tables"));
}

absl::Status VhdxDisk::CheckBitmapEntry(uint64_t index, BatEntry entry) const {
  const auto field = [index](const char* name) { return absl::StrCat("BAT[", index, "].", name); };
  const uint64_t at = bat().EntryOffset(index);
  if (entry.state() != BlockState::kFullyPresent) {
    return Damaged(at, field("State"), "no sector bitmap for a partially present block");
  }
  const uint64_t offset = entry.file_offset();
  if (entry.reserved_bits() || offset < kHeaderSectionBytes || offset > space_.file_bytes() ||
      kSectorBitmapBytes > space_.file_bytes() - offset ||
      !image_->IsBlockSpace(offset, kSectorBitmapBytes)) {
    return Damaged(at, field("FileOffsetMB"),
                   absl::StrCat("a sector bitmap at ", offset, " of a file of ",
                                space_.file_bytes(), " bytes: outside it or within its tables"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> VhdxDisk::BitmapPageOffset(uint64_t offset, BatEntry bitmap_entry) const {
  const uint64_t index = bat().BitmapIndex(bat().ChunkOf(BlockOf(offset)));
  RETURN_IF_ERROR(CheckBitmapEntry(index, bitmap_entry));
  const uint64_t bit = (offset >> sector_shift_) % kSectorsPerBitmapBlock;
  return bitmap_entry.file_offset() + RoundDown(bit / 8, kPageBytes);
}

uint32_t VhdxDisk::BitOf(uint64_t offset) const {
  return static_cast<uint32_t>((offset >> sector_shift_) % kBitsPerPage);
}

uint64_t VhdxDisk::BitmapPageEnd(uint64_t offset) const {
  const uint64_t page_span = uint64_t{kBitsPerPage} << sector_shift_;
  return RoundDown(offset, page_span) + page_span;
}

// --- The beginning and the end of changes ---

Task<absl::Status> VhdxDisk::BeginChanges() {
  while (!changes_begun_) {
    if (beginning_) {
      co_await begun_.Wait();
      continue;
    }
    beginning_ = true;
    const Guid guid = options_.next_linkage.is_zero() ? Guid::Random() : options_.next_linkage;
    const HeaderStore::Change change = {.data_write_guid = &guid, .log_guid = nullptr};
    absl::Status status = co_await image_->headers().Update(*file_, change);
    beginning_ = false;
    changes_begun_ = status.ok();
    begun_.WakeAll();
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

// What is left are commits and the zeroing of freed space. A commit begins only within a request,
// or within another one; its end has space zeroed, and the end of that begins nothing.
Task<void> VhdxDisk::Settle() {
  // What failed is tried again by the next flush, which tells of it.
  (void)co_await tables_.WaitUntilIdle();
  (void)co_await space_.WaitUntilIdle();
  if (parent_ != nullptr) co_await parent_->Settle();
}

Task<absl::Status> VhdxDisk::Close() {
  absl::Status status;
  if (changes_begun_) {
    status = co_await tables_.Finish();
    absl::Status idle = co_await space_.WaitUntilIdle();
    // The file is only cut where no log could say that it is longer.
    if (status.ok()) status = co_await space_.Cut();
    if (status.ok()) status = co_await Flush(*file_);
  }
  status = file_->AnswerFlush(std::move(status));
  if (parent_ != nullptr) {
    absl::Status closed = co_await parent_->Close();
    if (status.ok()) status = closed;
  }
  co_return status;
}

std::vector<Fact> VhdxDisk::Facts() const {
  const DiskParameters& parameters = image_->parameters();
  const Header& header = image_->headers().current();
  const bool fixed = parameters.leave_block_allocated;
  std::vector<Fact> facts;
  facts.push_back({"type", std::string(parameters.has_parent ? "differencing"
                                       : fixed               ? "fixed"
                                                             : "dynamic")});
  facts.push_back({"block_size_bytes", block_bytes_});
  facts.push_back({"blocks", bat().payload_blocks()});
  facts.push_back({"log_bytes", uint64_t{header.log_length}});
  facts.push_back({"log_replayed", image_->log_replayed()});
  facts.push_back({"disk_id", parameters.disk_id.ToString()});
  facts.push_back({"data_write_guid", header.data_write_guid.ToString()});
  facts.push_back({"table_bytes_in_memory", uint64_t{tables_.resident_bytes()}});
  for (const auto& [key, value] : image_->locator().entries) facts.push_back({key, value});
  return facts;
}

}  // namespace bothy::disk::vhdx
