#include "disk/vhdx/image_editor.h"

#include <cstring>

namespace bothy::disk::vhdx {
namespace {

constexpr uint32_t kCacheBytes = 1 << 20;

}  // namespace

ImageEditor::ImageEditor(std::unique_ptr<FlushTrackingStorage> storage,
                         std::unique_ptr<ImageFile> image)
    : storage_(std::move(storage)),
      image_(std::move(image)),
      tables_(*storage_, image_->headers(), kCacheBytes) {
  tables_.set_structures_end(RoundUp(storage_->size(), kMiB));
}

Task<absl::StatusOr<std::unique_ptr<ImageEditor>>> ImageEditor::Open(Storage& storage) {
  auto tracked = std::make_unique<FlushTrackingStorage>(storage);
  absl::StatusOr<std::unique_ptr<ImageFile>> image =
      co_await ImageFile::Open(*tracked, ImageFile::Mode::kWritable);
  CO_RETURN_IF_ERROR(image.status());
  std::unique_ptr<ImageEditor> editor(new ImageEditor(std::move(tracked), *std::move(image)));
  co_return editor;
}

Task<absl::Status> ImageEditor::Begin(Changes changes, Guid next_linkage) {
  const Guid guid = next_linkage.is_zero() ? Guid::Random() : next_linkage;
  HeaderStore::Change change;
  if (changes == Changes::kContents) change.data_write_guid = &guid;
  co_return co_await image_->headers().Update(*storage_, change);
}

Task<absl::Status> ImageEditor::Finish() {
  absl::Status status = co_await tables_.Finish();
  co_return storage_->AnswerFlush(std::move(status));
}

Task<absl::Status> ImageEditor::Write(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const uint64_t within = offset % kPageBytes;
    const size_t part = std::min<size_t>(bytes.size(), kPageBytes - within);
    absl::Status status = co_await tables_.Reserve(1);
    CO_RETURN_IF_ERROR(status);
    absl::StatusOr<MetadataStore::PageRef> page = co_await tables_.Load(offset - within);
    if (page.ok() && std::memcmp((*page)->bytes.data() + within, bytes.data(), part) != 0) {
      std::memcpy((*page)->bytes.data() + within, bytes.data(), part);
      tables_.MarkDirty(**page, MetadataStore::Order::kAfterData);
    }
    tables_.Release(1);
    CO_RETURN_IF_ERROR(page.status());
    bytes = bytes.subspan(part);
    offset += part;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ImageEditor::WriteRegions(const RegionTable& regions) {
  std::vector<uint8_t> bytes(kRegionTableBytes);
  BuildRegionTable(regions, std::span(bytes).first<kRegionTableBytes>());
  for (const uint64_t offset : kRegionTableOffsets) {
    absl::Status status = co_await Write(offset, bytes);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<BatEntry>> ImageEditor::Entry(uint64_t index) {
  absl::StatusOr<MetadataStore::PageRef> page =
      co_await tables_.Load(image_->bat().PageOffset(index));
  CO_RETURN_IF_ERROR(page.status());
  co_return BatEntry((*page)->Load64(BatLayout::Slot(index)));
}

std::optional<BatEntry> ImageEditor::FindEntry(uint64_t index) {
  const MetadataStore::Page* page = tables_.Find(image_->bat().PageOffset(index));
  if (page == nullptr) return std::nullopt;
  return BatEntry(page->Load64(BatLayout::Slot(index)));
}

Task<absl::Status> ImageEditor::SetEntry(uint64_t index, BatEntry entry) {
  uint8_t bytes[kBatEntryBytes];
  StoreLe(bytes, entry.bits());
  const std::span<const uint8_t> span(bytes);
  co_return co_await Write(image_->bat().EntryOffset(index), span);
}

Task<absl::Status> ImageEditor::GiveBack(const SpaceMap& space) {
  for (uint64_t at = 0; at < space.end();) {
    const SpaceMap::Run run = space.FindFree(at, space.end());
    if (run.length == 0) break;
    absl::Status status = co_await WriteZeroes(*storage_, run.offset, run.length);
    CO_RETURN_IF_ERROR(status);
    at = run.offset + run.length;
  }
  if (space.end() < storage_->size()) {
    absl::Status status = co_await storage_->Resize(space.end());
    CO_RETURN_IF_ERROR(status);
  }
  co_return co_await Flush(*storage_);
}

}  // namespace bothy::disk::vhdx
