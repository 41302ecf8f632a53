#include "disk/tools/commit_image.h"

#include <stop_token>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/host_storage.h"
#include "disk/open_image.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"
#include "support/check.h"

namespace bothy::disk::tools {
namespace {

// Opens the parent of the image that is committed, for writing, and remembers it.
struct WritableParent {
  IoLoop& loop;
  ImageType type;
  Guid next_linkage;
  Disk* disk = nullptr;

  Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(ParentReference reference) {
    absl::StatusOr<std::unique_ptr<Storage>> storage =
        co_await OpenParentFile(loop, std::move(reference), false);
    if (!storage.ok()) co_return storage.status();
    absl::StatusOr<std::unique_ptr<Disk>> opened = co_await OpenFormat(*std::move(storage));
    if (opened.ok()) disk = opened->get();
    co_return opened;
  }

  Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenFormat(std::unique_ptr<Storage> storage) {
    // Its own parents are read only.
    ParentOpener grandparent = ReadOnlyParents(loop, type);
    if (type == ImageType::kVhdx) {
      vhdx::OpenOptions options;
      options.open_parent = std::move(grandparent);
      options.next_linkage = next_linkage;
      absl::StatusOr<std::unique_ptr<Disk>> opened =
          co_await vhdx::Open(std::move(storage), std::move(options));
      co_return opened;
    }
    vhd1::OpenOptions options;
    options.open_parent = std::move(grandparent);
    absl::StatusOr<std::unique_ptr<Disk>> opened =
        co_await vhd1::Open(std::move(storage), std::move(options));
    co_return opened;
  }
};

// The image and its parent before anything changes.
struct Before {
  uint64_t child_bytes = 0;
  std::string parent_path;
  uint64_t parent_bytes = 0;
  Guid parent_linkage;
};

// The parent is the one that the image was made for.
Task<absl::StatusOr<Before>> LookBefore(IoLoop& loop, const Source& source) {
  OpenImageOptions options;
  options.read_only = true;
  absl::StatusOr<std::unique_ptr<Disk>> child =
      co_await OpenImage(loop, source.path, source.type, options);
  if (!child.ok()) co_return child.status();
  absl::StatusOr<Before> before =
      absl::FailedPreconditionError(absl::StrCat(source.path, ": differs from no parent"));
  const Disk* parent = (*child)->parent();
  if (parent != nullptr && parent->linkage().has_value()) {
    before = Before{.child_bytes = (*child)->geometry().size_bytes,
                    .parent_path = parent->path(),
                    .parent_bytes = parent->geometry().size_bytes,
                    .parent_linkage = *parent->linkage()};
  }
  absl::Status closed = co_await (*child)->Close();
  CO_RETURN_IF_ERROR(closed);
  co_return before;
}

// Makes room in the parent for all of the image, which reads the same afterwards: it shows zeros
// past its parent's end, and there are some now. The parent is then known by `next_linkage`.
Task<absl::Status> GrowParent(IoLoop& loop, const Source& source, const Before& before,
                              const Guid& next_linkage, std::stop_token stop) {
  if (before.parent_bytes >= before.child_bytes) co_return absl::OkStatus();
  const Source parent = {.path = before.parent_path, .type = source.type};
  ResizeSpec resize;
  resize.size_bytes = before.child_bytes;
  resize.next_linkage = next_linkage;
  resize.stop = std::move(stop);
  absl::Status status = co_await ResizeImage(loop, parent, std::move(resize));
  co_return status;
}

// Makes the image good for a parent that is known by `linkage`, or by `linkage2` unless that is
// zero.
Task<absl::Status> Relink(IoLoop& loop, const Source& source, const Guid& linkage,
                          const Guid& linkage2) {
  if (source.type != ImageType::kVhdx) co_return absl::OkStatus();  // VHD1 has nothing of the kind
  HostStorageOptions options;
  options.path = source.path;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return storage.status();
  vhdx::LinkageUpdate update;
  update.linkage = linkage;
  update.linkage2 = linkage2;
  absl::Status status = co_await vhdx::SetParentLinkage(**storage, update);
  co_return status;
}

Task<absl::Status> CopyToParent(Disk& child, Disk& parent, const CopyOptions& options) {
  absl::Status status = co_await CopyOwnContents(child, parent, options);
  if (status.ok()) status = co_await Flush(parent);
  co_return status;
}

}  // namespace

namespace {

Task<absl::StatusOr<std::string>> CommitNamed(IoLoop& loop, const Source& source,
                                              CopyOptions options, std::string& parent_name) {
  if (source.type == ImageType::kRaw) {
    co_return absl::FailedPreconditionError(
        absl::StrCat(source.path, ": is raw and differs from no parent"));
  }
  options.target = CopyOptions::Target::kContents;
  WritableParent parent = {.loop = loop, .type = source.type, .next_linkage = Guid::Random()};
  // Before the parent changes the image is good for it as it is and as it will be.
  absl::StatusOr<Before> before = co_await LookBefore(loop, source);
  if (!before.ok()) co_return before.status();
  parent_name = before->parent_path;
  absl::Status status = co_await Relink(loop, source, before->parent_linkage, parent.next_linkage);
  CO_RETURN_IF_ERROR(status);
  status = co_await GrowParent(loop, source, *before, parent.next_linkage, options.stop);
  CO_RETURN_IF_ERROR(status);
  HostStorageOptions storage_options;
  storage_options.path = source.path;
  storage_options.read_only = true;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(storage_options));
  if (!storage.ok()) co_return storage.status();
  ParentOpener open_parent = [&parent](const ParentReference& reference) {
    return parent.Open(reference);
  };
  absl::StatusOr<std::unique_ptr<Disk>> child =
      co_await OpenOn(*std::move(storage), source.type, true, std::move(open_parent));
  if (!child.ok()) co_return child.status();
  CHECK(parent.disk != nullptr);
  const std::string parent_path = parent.disk->path();
  const Disk& changed = *parent.disk;
  status = co_await CopyToParent(**child, *parent.disk, options);
  // Closes the parent, too.
  absl::Status closed = co_await (*child)->Close();
  if (status.ok()) status = closed;
  CO_RETURN_IF_ERROR(status);
  const Guid now = changed.linkage().value_or(Guid());
  child->reset();
  status = co_await Relink(loop, source, now, Guid());
  CO_RETURN_IF_ERROR(status);
  co_return parent_path;
}

}  // namespace

Task<absl::StatusOr<std::string>> CommitImage(IoLoop& loop, const Source& source,
                                              CopyOptions options) {
  std::string parent_name;
  absl::StatusOr<std::string> parent =
      co_await CommitNamed(loop, source, std::move(options), parent_name);
  if (parent.ok()) co_return parent;
  // A request that failed is named by the disk and by its file.
  const absl::Status status = NamedOnce(parent.status(), source.path);
  if (parent_name.empty()) co_return status;
  co_return NamedOnce(status, parent_name);
}

}  // namespace bothy::disk::tools
