#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/data_survey.h"
#include "disk/vhd1/block_table.h"
#include "disk/vhd1/examine.h"
#include "disk/vhd1/hide_parent.h"
#include "disk/vhd1/parent_paths.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

Footer Resized(Footer footer, uint64_t size_bytes) {
  footer.current_size = size_bytes;
  // "For informational purposes", the size at creation; but libvhdi takes it for the disk's, and
  // others refuse a fixed image whose sizes differ.
  footer.original_size = size_bytes;
  footer.geometry = ChsGeometry::For(size_bytes / kSectorBytes);
  // Qemu shows what its geometry amounts to, which can't be any size: from now on the size counts.
  const Footer ours = MakeFooter(size_bytes, footer.type, footer.unique_id);
  footer.creator_application = ours.creator_application;
  footer.creator_version = ours.creator_version;
  footer.creator_host_os = ours.creator_host_os;
  return footer;
}

// The image as the disk that it is before anything changes.
Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenUnchanged(Storage& storage,
                                                          const ResizeOptions& options) {
  OpenOptions open = {.read_only = true, .open_parent = options.open_parent};
  absl::StatusOr<std::unique_ptr<Disk>> disk =
      co_await Open(std::make_unique<BorrowedStorage>(storage), std::move(open));
  co_return disk;
}

// FailedPrecondition when anything but zeros would be cut off.
Task<absl::Status> RefuseIfDataIsCut(Storage& storage, const ResizeOptions& options) {
  if (options.discard_data) co_return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenUnchanged(storage, options);
  if (!disk.ok()) co_return disk.status();
  SurveyOptions survey = {.progress = options.progress, .stop = options.stop};
  absl::Status status = co_await RefuseToCutData(**disk, options.size_bytes, std::move(survey));
  absl::Status closed = co_await (*disk)->Close();
  co_return status.ok() ? closed : status;
}

uint64_t RoundUpToSector(uint64_t bytes) {
  return (bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}

// The last one only. Durable on return.
Task<absl::Status> WriteFooter(Storage& storage, const Footer& footer, uint64_t offset) {
  const auto bytes = footer.Encode();
  const std::span<const uint8_t> data(bytes);
  absl::Status status = co_await WriteAt(storage, offset, data);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

Task<absl::Status> ResizeFixed(Storage& storage, const Image& image, const ResizeOptions& options) {
  const uint64_t old_size = image.disk_bytes();
  absl::Status status;
  if (options.size_bytes < old_size) {
    status = co_await RefuseIfDataIsCut(storage, options);
    CO_RETURN_IF_ERROR(status);
  }
  // A footer at the file's end with the new size is the change; before it and after it the image is
  // a good one with room behind the disk. So the footer is first brought to where it can be for
  // both sizes, on a sector of its own.
  const uint64_t old_end = image.footer_offset + kFooterBytes;
  uint64_t footer_at = image.footer_offset;
  if (options.size_bytes > footer_at || footer_at % kSectorBytes != 0) {
    footer_at = std::max(options.size_bytes, RoundUpToSector(old_end));
    status = co_await WriteFooter(storage, image.footer, footer_at);
    CO_RETURN_IF_ERROR(status);
  }
  if (options.size_bytes > old_size) {
    // What was behind the disk, the old footer too, isn't to become part of it.
    status =
        co_await WriteZeroes(storage, old_size, std::min(old_end, options.size_bytes) - old_size);
    if (status.ok()) status = co_await Flush(storage);
    CO_RETURN_IF_ERROR(status);
  }
  const Footer footer = Resized(image.footer, options.size_bytes);
  status = co_await WriteFooter(storage, footer, footer_at);
  if (status.ok() && footer_at != options.size_bytes) {
    status = co_await WriteFooters(storage, footer, options.size_bytes);
  }
  co_return status;
}

Task<absl::Status> WriteHeader(Storage& storage, const Image& image) {
  const auto bytes = image.header->Encode();
  if (!bytes.ok()) co_return bytes.status();
  const std::span<const uint8_t> data(*bytes);
  absl::Status status = co_await WriteAt(storage, image.footer.data_offset, data);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

// Bytes of the table when it has `entries`, in whole sectors.
uint64_t TableRoom(uint64_t entries) {
  return (entries * 4 + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}

// Where the table can't grow any more: the next thing behind it.
uint64_t RoomEnd(const Image& image, const Examination& found) {
  uint64_t end = found.data_end;
  const uint64_t table = image.header->table_offset;
  for (const FoundBlock& block : found.blocks) {
    if (block.offset > table) {
      end = std::min(end, block.offset);
      break;
    }
  }
  for (const LocatorEntry& entry : image.header->locators) {
    if (entry.platform_code != 0 && entry.data_offset > table) {
      end = std::min(end, entry.data_offset);
    }
  }
  return end;
}

// Gives the table `entries`, where it is or, when something is behind it, at the file's end.
Task<absl::Status> GrowTable(Storage& storage, const Footer& footer, uint32_t entries,
                             Examination& found) {
  Image& image = *found.image;
  const uint32_t before = image.header->max_table_entries;
  if (entries <= before) co_return absl::OkStatus();
  std::vector<uint8_t> table(TableRoom(entries), 0xFF);
  const std::span<uint8_t> known(table.data(), uint64_t{image.blocks()} * 4);
  absl::Status status = co_await ReadAt(storage, image.header->table_offset, known);
  CO_RETURN_IF_ERROR(status);
  uint64_t offset = image.header->table_offset;
  if (offset + table.size() > RoomEnd(image, found) || found.data_end < offset) {
    offset = found.data_end;
  }
  if (offset + table.size() > found.data_end) {
    // The footer moves behind it first.
    found.data_end = offset + table.size();
    status = co_await WriteFooters(storage, footer, std::max(found.data_end, storage.size()));
    CO_RETURN_IF_ERROR(status);
  }
  const std::span<const uint8_t> data(table);
  status = co_await WriteAt(storage, offset, data);
  if (status.ok()) status = co_await Flush(storage);
  CO_RETURN_IF_ERROR(status);
  // Table Offset, Max Table Entries and the checksum are in one sector.
  image.header->table_offset = offset;
  image.header->max_table_entries = entries;
  status = co_await WriteHeader(storage, image);
  co_return status;
}

// Zeros for what `block` holds but its first `kept` bytes.
Task<absl::Status> ClearTail(Storage& storage, const Image& image, const FoundBlock& block,
                             uint64_t kept) {
  absl::Status status = co_await WriteZeroes(
      storage, block.offset + image.header->bitmap_bytes() + kept, image.header->block_size - kept);
  co_return status;
}

// Lets the sectors of the last block that are past the disk's end read as zero.
Task<absl::Status> ClearLastTail(Storage& storage, const Examination& found) {
  const Image& image = *found.image;
  const uint64_t kept = image.disk_bytes() % image.header->block_size;
  const auto last = std::ranges::find(found.blocks, image.blocks() - 1, &FoundBlock::block);
  if (kept == 0 || last == found.blocks.end()) co_return absl::OkStatus();
  absl::Status status = co_await ClearTail(storage, image, *last, kept);
  if (image.footer.type != DiskType::kDifferencing) co_return status;
  if (status.ok()) status = co_await Flush(storage);
  if (status.ok()) status = co_await HideTail(storage, image, *last, kept);
  co_return status;
}

// Before the disk gets `blocks`: what is past its end now, where a shrink that was interrupted
// leaves what it was going to cut off, isn't to become part of it. Durable on return.
Task<absl::Status> ClearPastTheEnd(Storage& storage, uint32_t blocks, const Examination& found) {
  const Image& image = *found.image;
  absl::Status status = co_await ClearLastTail(storage, found);
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteUnused(storage, image, blocks);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

// Lets blocks past the new end read as never written, and the last one's tail as zero.
Task<absl::Status> CutBlocks(Storage& storage, uint64_t size_bytes, const Examination& found) {
  const Image& image = *found.image;
  for (const FoundBlock& block : found.blocks) {
    const uint64_t begin = uint64_t{block.block} * image.header->block_size;
    absl::Status status;
    if (begin >= size_bytes) {
      status = co_await WriteEntry(storage, image, block.block, BlockTable::kUnused);
    } else if (begin + image.header->block_size > size_bytes) {
      status = co_await ClearTail(storage, image, block, size_bytes - begin);
    }
    CO_RETURN_IF_ERROR(status);
  }
  absl::Status status = co_await Flush(storage);
  co_return status;
}

// How far the parent of a differencing image reaches, in bytes.
Task<absl::StatusOr<uint64_t>> ParentBytes(Storage& storage, const ResizeOptions& options) {
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenUnchanged(storage, options);
  if (!disk.ok()) co_return disk.status();
  const uint64_t bytes = (*disk)->parent()->geometry().size_bytes;
  absl::Status closed = co_await (*disk)->Close();
  CO_RETURN_IF_ERROR(closed);
  co_return bytes;
}

Task<absl::Status> GrowDynamic(Storage& storage, const ResizeOptions& options, Examination& found) {
  Image& image = *found.image;
  Image grown = image;
  grown.footer = Resized(image.footer, options.size_bytes);
  const uint64_t blocks =
      (options.size_bytes + image.header->block_size - 1) / image.header->block_size;
  if (blocks > kMaxBlocks) {
    co_return absl::InvalidArgumentError(absl::StrCat("size_bytes: ", options.size_bytes,
                                                      " makes more than ", kMaxBlocks, " blocks"));
  }
  HiddenRange hidden = {.begin = image.disk_bytes(), .end = 0};
  if (image.footer.type == DiskType::kDifferencing) {
    absl::StatusOr<uint64_t> parent_bytes = co_await ParentBytes(storage, options);
    if (!parent_bytes.ok()) co_return parent_bytes.status();
    hidden.end = std::min(*parent_bytes, options.size_bytes);
  }
  absl::Status status = CheckRoomToHide(grown, hidden, found.data_end + TableRoom(blocks));
  CO_RETURN_IF_ERROR(status);
  status = co_await GrowTable(storage, image.footer, static_cast<uint32_t>(blocks), found);
  if (status.ok()) status = co_await ClearPastTheEnd(storage, static_cast<uint32_t>(blocks), found);
  if (status.ok() && hidden.begin < hidden.end) {
    grown.header = image.header;
    status = co_await HideParent(storage, grown, hidden, options.progress, found);
  }
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteFooters(storage, grown.footer, found.data_end);
  co_return status;
}

Task<absl::Status> ResizeDynamic(Storage& storage, const ResizeOptions& options,
                                 Examination& found) {
  if (options.size_bytes > found.image->disk_bytes()) {
    absl::Status grown = co_await GrowDynamic(storage, options, found);
    co_return grown;
  }
  absl::Status status = co_await RefuseIfDataIsCut(storage, options);
  CO_RETURN_IF_ERROR(status);
  // The size first: entries past it don't matter.
  const Footer footer = Resized(found.image->footer, options.size_bytes);
  status = co_await WriteFooters(storage, footer, found.data_end);
  CO_RETURN_IF_ERROR(status);
  status = co_await CutBlocks(storage, options.size_bytes, found);
  co_return status;
}

// What an interrupted Resize or Repair leaves: one of the two footers is the new one.
bool OnlyFootersDiffer(const CheckReport& report) {
  return report.more_problems == 0 &&
         std::ranges::all_of(report.problems, [](const Problem& found) {
           return found.severity == Severity::kNote ||
                  (found.severity == Severity::kWarning && found.field == "FooterCopy");
         });
}

// After a resize that failed, as on a full host: what it took of the file and nothing refers to.
// `footer_offset` was that of a fixed image. The image is good whether this goes well or not.
Task<absl::Status> GiveBack(Storage& storage, uint64_t old_size, uint64_t footer_offset) {
  absl::StatusOr<Examination> examined = co_await Examine(storage, nullptr);
  CO_ASSIGN_OR_RETURN(Examination found, examined);
  if (!found.image.has_value() || !found.report.sound()) co_return absl::OkStatus();
  const Image& image = *found.image;
  absl::Status status;
  if (image.footer.type == DiskType::kFixed) {
    if (image.disk_bytes() != old_size || image.footer_offset <= footer_offset) co_return status;
    status = co_await WriteFooters(storage, image.footer, footer_offset);
    co_return status;
  }
  status = co_await WriteUnused(storage, image, found.past_the_end);
  if (status.ok()) status = co_await Flush(storage);
  if (status.ok()) status = co_await WriteFooters(storage, image.footer, found.data_end);
  co_return status;
}

Task<absl::Status> ResizeImage(Storage& storage, const ResizeOptions& options) {
  if (options.size_bytes == 0 || options.size_bytes % kSectorBytes != 0 ||
      options.size_bytes > kMaxDiskBytes) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("size_bytes: ", options.size_bytes,
                     " bytes isn't a number of whole sectors up to ", kMaxDiskBytes));
  }
  absl::StatusOr<Examination> examined = co_await Examine(storage, options.progress);
  CO_ASSIGN_OR_RETURN(Examination found, examined);
  if (options.stop.stop_requested()) co_return NothingChanged();
  const bool bad = found.report.worst >= Severity::kWarning && !found.report.clean();
  if (bad && !OnlyFootersDiffer(found.report)) {
    co_return absl::FailedPreconditionError("has problems; repair it first");
  }
  absl::Status status;
  const bool fixed = found.footer->type == DiskType::kFixed;
  // A fixed image may have room behind the disk, as an interrupted shrink leaves it. Unless
  // programs differ on where the disk ends it is nobody's.
  const bool room_left = fixed && found.image->footer_offset != options.size_bytes &&
                         found.footer->current_size == options.size_bytes;
  if (options.size_bytes == found.image->disk_bytes() && !room_left) {
    if (bad) status = co_await WriteFooters(storage, found.image->footer, found.data_end);
    co_return status;
  }
  const uint64_t old_size = found.image->disk_bytes();
  const uint64_t footer_offset = found.image->footer_offset;
  const uint64_t old_file_bytes = storage.size();
  if (fixed) {
    status = co_await ResizeFixed(storage, *found.image, options);
  } else {
    status = co_await ResizeDynamic(storage, options, found);
  }
  if (!status.ok() && storage.size() > old_file_bytes) {
    absl::Status given_back = co_await GiveBack(storage, old_size, footer_offset);
    // What went wrong first is what there is to tell.
    static_cast<void>(given_back);
  }
  co_return status;
}

Task<absl::Status> Relink(Storage& storage, const ParentSpelling& parent) {
  absl::StatusOr<Image> read = co_await ReadImage(storage);
  CO_ASSIGN_OR_RETURN(Image image, read);
  if (image.footer.type != DiskType::kDifferencing) {
    co_return absl::FailedPreconditionError("isn't a differencing image");
  }
  DynamicHeader& header = *image.header;
  if (!parent.linkage.is_zero()) header.parent_unique_id = parent.linkage;
  if (parent.modified_time != 0) header.parent_time_stamp = ToTimeStamp(parent.modified_time);
  if (!parent.relative_path.empty() || !parent.absolute_path.empty()) {
    absl::StatusOr<std::string> name = ParentName(parent);
    CO_ASSIGN_OR_RETURN(header.parent_name, name);
    absl::StatusOr<std::vector<EncodedLocator>> locators = EncodeParentPaths(parent);
    if (!locators.ok()) co_return locators.status();
    // New paths never overwrite what the header refers to: until it is written the old ones hold.
    uint64_t end = RoundUpToSector(image.footer_offset);
    const uint64_t begin = end;
    for (const EncodedLocator& locator : *locators) end += locator.entry.data_space;
    absl::Status status = co_await WriteFooters(storage, image.footer, end);
    CO_RETURN_IF_ERROR(status);
    end = begin;
    for (EncodedLocator& locator : *locators) {
      locator.bytes.resize(locator.entry.data_space);
      const std::span<const uint8_t> data(locator.bytes);
      status = co_await WriteAt(storage, end, data);
      CO_RETURN_IF_ERROR(status);
      locator.entry.data_offset = end;
      end += locator.entry.data_space;
      auto place = std::ranges::find_if(header.locators, [&](const LocatorEntry& entry) {
        return entry.platform_code == locator.entry.platform_code || entry.platform_code == 0;
      });
      if (place == header.locators.end()) place = header.locators.begin();
      *place = locator.entry;
    }
    status = co_await Flush(storage);
    CO_RETURN_IF_ERROR(status);
  }
  absl::Status status = co_await WriteHeader(storage, image);
  co_return status;
}

}  // namespace

Task<absl::Status> Resize(Storage& storage, const ResizeOptions& options) {
  absl::Status status = co_await ResizeImage(storage, options);
  co_return WithContext(status, storage.path());
}

Task<absl::Status> SetParentLinkage(Storage& storage, const ParentSpelling& parent) {
  absl::Status status = co_await Relink(storage, parent);
  co_return WithContext(status, storage.path());
}

}  // namespace bothy::disk::vhd1
