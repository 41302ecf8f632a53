#include <utility>

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
  std::string spelled;
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

Task<absl::StatusOr<OpenedParent>> OpenParent(Storage& storage, const Image& image,
                                              const ParentOpener& open_parent) {
  absl::StatusOr<ParentReference> read =
      co_await ReadParentReference(storage, *image.header, image.footer.data_offset);
  CO_ASSIGN_OR_RETURN(const ParentReference reference, read);
  OpenedParent parent;
  parent.spelled = absl::StrJoin(reference.spelled_paths, ", ");
  if (!open_parent) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("differs from a parent (", parent.spelled, "), which isn't to be opened"));
  }
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await open_parent(reference);
  CO_ASSIGN_OR_RETURN(parent.disk, disk);
  absl::Status status = CheckParent(*parent.disk, image);
  if (!status.ok()) {
    const absl::Status closed = co_await parent.disk->Close();
    static_cast<void>(closed);
    co_return status;
  }
  co_return parent;
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenImage(std::unique_ptr<Storage>& storage,
                                                      const OpenOptions& options) {
  absl::StatusOr<Image> read = co_await ReadImage(*storage);
  CO_ASSIGN_OR_RETURN(const Image image, read);
  std::unique_ptr<Disk> disk;
  if (image.footer.type == DiskType::kFixed) {
    disk = std::make_unique<FixedDisk>(std::move(storage), image, options.read_only);
    co_return disk;
  }
  OpenedParent parent;
  if (image.footer.type == DiskType::kDifferencing) {
    absl::StatusOr<OpenedParent> opened = co_await OpenParent(*storage, image, options.open_parent);
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
  const std::string path = storage->path();
  absl::StatusOr<std::unique_ptr<Disk>> disk = co_await OpenImage(storage, options);
  if (!disk.ok()) co_return WithContext(disk.status(), path);
  co_return disk;
}

Task<absl::StatusOr<bool>> Probe(Storage& storage) {
  absl::StatusOr<FooterCopies> copies = co_await ReadFooters(storage);
  if (!copies.ok()) co_return copies.status();
  co_return !absl::IsNotFound(copies->last.status()) || !absl::IsNotFound(copies->first.status());
}

}  // namespace bothy::disk::vhd1
