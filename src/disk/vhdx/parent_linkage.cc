// SetParentLinkage: rewrites the parent locator of a differencing image.
#include "absl/strings/str_cat.h"
#include "disk/vhdx/image_editor.h"
#include "disk/vhdx/parent_locator.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

absl::StatusOr<std::vector<uint8_t>> UpdatedLocator(ParentLocator locator,
                                                    const LinkageUpdate& update) {
  if (!update.linkage.is_zero()) locator.Set(kParentLinkage, SpellLinkage(update.linkage));
  if (update.linkage2.has_value()) {
    locator.Set(kParentLinkage2, update.linkage2->is_zero() ? "" : SpellLinkage(*update.linkage2));
  }
  if (!update.relative_path.empty()) {
    ASSIGN_OR_RETURN(const std::string path, SpellPath(update.relative_path, false));
    locator.Set(kRelativePath, path);
  }
  if (!update.absolute_path.empty()) {
    ASSIGN_OR_RETURN(const std::string path, SpellPath(update.absolute_path, true));
    locator.Set(kAbsoluteWin32Path, path);
  }
  return BuildParentLocator(locator);
}

// Where `length` bytes fit, among all items but `item`: where it is, or after the last one.
absl::StatusOr<uint32_t> FindPlace(const MetadataTable& table, const MetadataItem& item,
                                   uint64_t length, uint64_t region_bytes) {
  uint64_t next = region_bytes;
  uint64_t end = kMetadataTableBytes;
  for (const MetadataItem& other : table.items) {
    if (&other == &item || other.length == 0) continue;
    if (other.offset > item.offset) next = std::min<uint64_t>(next, other.offset);
    end = std::max<uint64_t>(end, other.offset + other.length);
  }
  if (item.offset >= kMetadataTableBytes && item.offset + length <= next) return item.offset;
  end = RoundUp(end, 8);
  if (end + length <= region_bytes) return static_cast<uint32_t>(end);
  return absl::ResourceExhaustedError("no room in the metadata region for the parent's paths");
}

Task<absl::Status> WriteLocator(ImageEditor& editor, size_t index, const MetadataItem& item,
                                std::span<const uint8_t> bytes) {
  const uint64_t region = editor.image().regions().metadata().offset;
  absl::Status status = co_await editor.Begin(ImageEditor::Changes::kLayout);
  CO_RETURN_IF_ERROR(status);
  // Only the item's own fields: others may have flags that a table built anew wouldn't.
  constexpr uint64_t kEntryBytes = 32;
  uint8_t fields[8];
  StoreLe(fields, item.offset);
  StoreLe(fields + 4, item.length);
  const std::span<const uint8_t> span(fields);
  status = co_await editor.Write(region + (index + 1) * kEntryBytes + 16, span);
  CO_RETURN_IF_ERROR(status);
  status = co_await editor.Write(region + item.offset, bytes);
  CO_RETURN_IF_ERROR(status);
  co_return co_await editor.Finish();
}

}  // namespace

Task<absl::Status> SetParentLinkage(Storage& storage, const LinkageUpdate& update) {
  absl::StatusOr<std::unique_ptr<ImageEditor>> opened = co_await ImageEditor::Open(storage);
  if (!opened.ok()) co_return WithContext(opened.status(), storage.path());
  ImageEditor& editor = **opened;
  const ImageFile& image = editor.image();
  if (!image.parameters().has_parent) {
    co_return absl::FailedPreconditionError(absl::StrCat(storage.path(), ": has no parent"));
  }
  absl::StatusOr<std::vector<uint8_t>> bytes = UpdatedLocator(image.locator(), update);
  if (!bytes.ok()) co_return WithContext(bytes.status(), storage.path());

  const Region& region = image.regions().metadata();
  MetadataTable table = image.metadata();
  const auto index = static_cast<size_t>(table.Find(kParentLocatorItem) - table.items.data());
  MetadataItem& item = table.items[index];
  const absl::StatusOr<uint32_t> place = FindPlace(table, item, bytes->size(), region.length);
  if (!place.ok()) co_return WithContext(place.status(), storage.path());
  item.offset = *place;
  item.length = static_cast<uint32_t>(bytes->size());

  absl::Status status = co_await WriteLocator(editor, index, item, *bytes);
  absl::Status idle = co_await editor.tables().WaitUntilIdle();
  co_return WithContext(status, storage.path());
}

}  // namespace bothy::disk::vhdx
