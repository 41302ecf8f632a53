#include "disk/vhdx/image_file.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhdx/log_replay.h"

namespace bothy::disk::vhdx {
namespace {

Task<absl::StatusOr<RegionTable>> ReadRegionTable(Storage& storage, uint64_t offset) {
  std::vector<uint8_t> bytes(kRegionTableBytes);
  absl::Status status = co_await ReadAt(storage, offset, std::span<uint8_t>(bytes));
  if (absl::IsOutOfRange(status)) {
    co_return Damaged(offset, "RegionTable",
                      absl::StrCat("past the end, ", storage.size(), " bytes"));
  }
  CO_RETURN_IF_ERROR(status);
  co_return ParseRegionTable(std::span(bytes).first<kRegionTableBytes>(), offset);
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<ImageFile>>> ImageFile::Open(Storage& storage, Mode mode) {
  if (storage.size() > kMaxFileBytes) {
    co_return Unsupported(0, "file", absl::StrCat(storage.size(), " bytes are over 128 TiB"));
  }
  absl::StatusOr<HeaderStore> headers = co_await HeaderStore::Load(storage);
  CO_RETURN_IF_ERROR(headers.status());
  std::unique_ptr<ImageFile> image(new ImageFile(storage, *std::move(headers)));
  absl::Status status = co_await image->RecoverLog(mode);
  CO_RETURN_IF_ERROR(status);
  status = co_await image->ReadRegions();
  CO_RETURN_IF_ERROR(status);
  status = co_await image->ReadMetadata();
  CO_RETURN_IF_ERROR(status);
  CO_RETURN_IF_ERROR(image->CollectStructures());
  co_return image;
}

Task<absl::Status> ImageFile::RecoverLog(Mode mode) {
  const Header& header = headers_.current();
  if (header.log_guid.is_zero()) co_return absl::OkStatus();
  log_replayed_ = true;
  const LogPlace place = {
      .offset = header.log_offset, .length = header.log_length, .guid = header.log_guid};
  if (mode == Mode::kReadOnly) {
    overlay_ = std::make_unique<OverlayStorage>(file_);
    co_return co_await ReplayLog(file_, place, *overlay_);
  }
  // A new FileWriteGuid comes first (2.2.2). Until the last step the log stays as it is, so that
  // being cut off here is being cut off before.
  absl::Status status = co_await headers_.Update(file_, {});
  CO_RETURN_IF_ERROR(status);
  status = co_await ReplayLog(file_, place, file_);
  CO_RETURN_IF_ERROR(status);
  status = co_await Flush(file_);
  CO_RETURN_IF_ERROR(status);
  const Guid none;
  const HeaderStore::Change change = {.data_write_guid = nullptr, .log_guid = &none};
  co_return co_await headers_.Update(file_, change);
}

Task<absl::Status> ImageFile::ReadRegions() {
  absl::StatusOr<RegionTable> first = co_await ReadRegionTable(storage(), kRegionTableOffsets[0]);
  if (!first.ok() && !IsAboutContents(first.status())) co_return first.status();
  absl::StatusOr<RegionTable> second = co_await ReadRegionTable(storage(), kRegionTableOffsets[1]);
  if (!second.ok() && !IsAboutContents(second.status())) co_return second.status();
  if (!first.ok() && !second.ok()) co_return first.status();
  regions_ = first.ok() ? *first : *second;
  if (!first.ok() || !second.ok()) {
    region_copy_status_ = first.ok() ? second.status() : first.status();
  } else if (*first != *second) {
    region_copy_status_ =
        Damaged(kRegionTableOffsets[1], "RegionTable", "differs from the first copy");
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ImageFile::ReadMetadata() {
  const Region& region = regions_.metadata();
  std::vector<uint8_t> bytes(kMetadataTableBytes);
  absl::Status status = co_await ReadAt(storage(), region.offset, std::span<uint8_t>(bytes));
  if (absl::IsOutOfRange(status)) {
    co_return Damaged(region.offset, "MetadataTable",
                      absl::StrCat("past the end, ", storage().size(), " bytes"));
  }
  CO_RETURN_IF_ERROR(status);
  absl::StatusOr<MetadataTable> table = ParseMetadataTable(
      std::span(bytes).first<kMetadataTableBytes>(), region.offset, region.length);
  CO_RETURN_IF_ERROR(table.status());
  metadata_ = *std::move(table);

  for (const MetadataItem& item : metadata_.items) {
    const bool locator = item.id == kParentLocatorItem && !item.is_user;
    if (item.length > kLongestFixedItem && !locator) continue;
    bytes.resize(item.length);
    const uint64_t offset = region.offset + item.offset;
    if (item.length != 0) {
      status = co_await ReadAt(storage(), offset, std::span<uint8_t>(bytes));
      if (absl::IsOutOfRange(status)) {
        co_return Damaged(offset, "MetadataItem",
                          absl::StrCat("past the end, ", storage().size(), " bytes"));
      }
      CO_RETURN_IF_ERROR(status);
    }
    CO_RETURN_IF_ERROR(ParseItem(item, bytes, offset, parameters_));
  }
  CO_RETURN_IF_ERROR(CheckParameters(metadata_, parameters_, region.offset));
  if (parameters_.has_parent) {
    const MetadataItem& item = *metadata_.Find(kParentLocatorItem);
    bytes.resize(item.length);
    const uint64_t offset = region.offset + item.offset;
    status = co_await ReadAt(storage(), offset, std::span<uint8_t>(bytes));
    CO_RETURN_IF_ERROR(status);
    absl::StatusOr<ParentLocator> locator = ParseParentLocator(bytes, offset);
    CO_RETURN_IF_ERROR(locator.status());
    locator_ = *std::move(locator);
  }

  const Region& bat = regions_.bat();
  bat_ = BatLayout(bat.offset, parameters_);
  if (bat.length < bat_.bytes()) {
    co_return Damaged(bat.offset, "BAT",
                      absl::StrCat("the region's ", bat.length, " bytes are too few for ",
                                   bat_.entries(), " entries"));
  }
  if (bat.offset > storage().size() || bat_.bytes() > storage().size() - bat.offset) {
    co_return Damaged(bat.offset, "BAT",
                      absl::StrCat("isn't within the file of ", storage().size(), " bytes"));
  }
  co_return absl::OkStatus();
}

absl::Status ImageFile::CollectStructures() {
  structures_.push_back({.offset = 0, .end = kHeaderSectionBytes});
  const Header& header = headers_.current();
  structures_.push_back(
      {.offset = header.log_offset, .end = header.log_offset + header.log_length});
  for (const Region& region : regions_.regions) {
    structures_.push_back({.offset = region.offset, .end = region.offset + region.length});
  }
  std::ranges::sort(structures_, {}, &Extent::offset);
  for (size_t i = 1; i < structures_.size(); ++i) {
    // Regions don't overlap each other, so that the log is one of the two.
    if (structures_[i - 1].end > structures_[i].offset) {
      return Damaged(headers_.offset() + 72, "Header.LogOffset",
                     absl::StrCat("the log overlaps the region at ", structures_[i].offset, " or ",
                                  structures_[i - 1].offset));
    }
  }
  structures_end_ = structures_.back().end;
  return absl::OkStatus();
}

bool ImageFile::IsBlockSpace(uint64_t offset, uint64_t length) const {
  if (offset >= structures_end_) return true;
  const uint64_t end = offset + length;
  for (const Extent& structure : structures_) {
    if (structure.offset < end && offset < structure.end) return false;
  }
  return true;
}

}  // namespace bothy::disk::vhdx
