#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "disk/vhd1/dynamic_disk.h"
#include "disk/vhd1/fixed_disk.h"
#include "disk/vhd1/image.h"
#include "disk/vhd1/parent_paths.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

struct OpenedParent {
  std::unique_ptr<Disk> disk;
  std::vector<std::string> spelled;
};

absl::Status CheckParent(const Disk& parent, const Image& image) {
  const std::optional<Guid> id = parent.linkage();
  const Guid& wanted = image.header->parent_unique_id;
  if (!id.has_value() || *id != wanted) {
    return absl::FailedPreconditionError(
        absl::StrCat("the parent ", parent.path(), " has the identifier ",
                     id.has_value() ? id->ToString() : "of none", ", the image was made for ",
                     wanted.ToString()));
  }
  if (kSectorBytes % parent.geometry().logical_sector_bytes != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the parent ", parent.path(), " has sectors of ",
                     parent.geometry().logical_sector_bytes, " bytes"));
  }
  return absl::OkStatus();
}

// What goes wrong with the parent's file is told of that one only.
Task<absl::StatusOr<OpenedParent>> OpenParent(Storage& storage, const Image& image,
                                              const OpenOptions& options) {
  absl::StatusOr<ParentReference> read =
      co_await ReadParentReference(storage, *image.header, image.footer.data_offset);
  if (!read.ok()) co_return WithContext(read.status(), storage.path());
  const ParentReference reference = *std::move(read);
  OpenedParent parent;
  parent.spelled = reference.spelled_paths;
  if (options.without_parent) co_return parent;
  if (!options.open_parent) {
    co_return absl::FailedPreconditionError(
        absl::StrCat(storage.path(), ": differs from a parent (",
                     absl::StrJoin(parent.spelled, ", "), "), which isn't to be opened"));
  }
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await options.open_parent(reference);
  CO_ASSIGN_OR_RETURN(parent.disk, disk);
  absl::Status status = CheckParent(*parent.disk, image);
  if (!status.ok()) {
    const absl::Status closed = co_await parent.disk->Close();
    static_cast<void>(closed);
    co_return WithContext(status, storage.path());
  }
  co_return parent;
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenImage(std::unique_ptr<Storage>& storage,
                                                      const OpenOptions& options) {
  absl::StatusOr<Image> read = co_await ReadImage(*storage);
  if (!read.ok()) co_return WithContext(read.status(), storage->path());
  const Image image = *std::move(read);
  std::unique_ptr<Disk> disk;
  if (image.footer.type == DiskType::kFixed) {
    disk = std::make_unique<FixedDisk>(std::move(storage), image, options.read_only);
    co_return disk;
  }
  OpenedParent parent;
  if (image.footer.type == DiskType::kDifferencing) {
    absl::StatusOr<OpenedParent> opened = co_await OpenParent(*storage, image, options);
    CO_ASSIGN_OR_RETURN(parent, opened);
  }
  disk = std::make_unique<DynamicDisk>(std::move(storage), image, std::move(parent.disk),
                                       std::move(parent.spelled), options.read_only,
                                       options.cache_bytes);
  co_return disk;
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(std::unique_ptr<Storage> storage,
                                                 OpenOptions options) {
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenImage(storage, options);
  co_return disk;
}

Task<absl::StatusOr<bool>> Probe(Storage& storage) {
  absl::StatusOr<FooterCopies> copies = co_await ReadFooters(storage);
  if (!copies.ok()) co_return copies.status();
  co_return !absl::IsNotFound(copies->last.status()) || !absl::IsNotFound(copies->first.status());
}

}  // namespace bothy::disk::vhd1
