#include "disk/tools/make_image.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/host_storage.h"

namespace bothy::disk::tools {
namespace {

// A parent for the target of a conversion: the chain as it is, read-only.
ParentOpener OpenerOf(IoLoop& loop, const ImageSpec& spec) {
  return [&loop, path = spec.parent_path, type = spec.type](const ParentReference&) {
    OpenImageOptions options;
    options.read_only = true;
    return OpenImage(loop, path, type, options);
  };
}

Task<absl::Status> Fill(IoLoop& loop, NewImageFile& file, Disk& from, const ImageSpec& spec,
                        CopyOptions options) {
  absl::StatusOr<std::unique_ptr<Storage>> storage = co_await file.Open(loop);
  if (!storage.ok()) co_return storage.status();
  absl::StatusOr<std::unique_ptr<Disk>> to =
      co_await OpenOn(*std::move(storage), spec.type, false, OpenerOf(loop, spec));
  if (!to.ok()) co_return to.status();
  const bool differencing = spec.variant == Variant::kDifferencing;
  options.target = differencing ? CopyOptions::Target::kContents : CopyOptions::Target::kZero;
  absl::Status status = co_await CopyDisk(from, **to, options);
  absl::Status closed = co_await (*to)->Close();
  co_return status.ok() ? closed : status;
}

Task<absl::Status> Prepare(IoLoop& loop, NewImageFile& file, const std::string& path,
                           const ImageSpec& spec) {
  ParentFacts parent;
  if (spec.variant == Variant::kDifferencing) {
    absl::StatusOr<ParentFacts> looked = co_await LookAtParent(loop, spec.parent_path, spec.type);
    CO_ASSIGN_OR_RETURN(parent, looked);
  }
  absl::StatusOr<std::unique_ptr<Storage>> storage = co_await file.Open(loop);
  if (!storage.ok()) co_return storage.status();
  absl::Status status = co_await CreateOn(**storage, path, spec, parent);
  co_return status;
}

}  // namespace

Task<absl::Status> CreateImage(IoLoop& loop, const std::string& path, ImageSpec spec,
                               NewImageFile::Existing existing) {
  absl::StatusOr<std::unique_ptr<NewImageFile>> file = NewImageFile::Create(path, existing);
  if (!file.ok()) co_return file.status();
  absl::Status status = co_await Prepare(loop, **file, path, spec);
  if (status.ok()) status = (*file)->Publish();
  co_return (*file)->Named(status);
}

Task<absl::Status> ConvertImage(IoLoop& loop, const Source& source, const std::string& path,
                                ImageSpec spec, NewImageFile::Existing existing,
                                const CopyOptions& options) {
  absl::StatusOr<std::unique_ptr<NewImageFile>> file = NewImageFile::Create(path, existing);
  if (!file.ok()) co_return file.status();
  OpenImageOptions open;
  open.read_only = true;
  absl::StatusOr<std::unique_ptr<Disk>> from =
      co_await OpenImage(loop, source.path, source.type, open);
  if (!from.ok()) co_return from.status();
  const uint64_t size = (*from)->geometry().size_bytes;
  if (spec.size_bytes == 0) spec.size_bytes = size;
  absl::Status status;
  if (spec.size_bytes < size) {
    status = absl::InvalidArgumentError(absl::StrCat(
        "size_bytes: ", spec.size_bytes, " bytes is less than the ", size, " of ", source.path));
  }
  if (status.ok()) status = co_await Prepare(loop, **file, path, spec);
  if (status.ok()) status = co_await Fill(loop, **file, **from, spec, options);
  absl::Status closed = co_await (*from)->Close();
  if (status.ok()) status = closed;
  if (status.ok()) status = (*file)->Publish();
  co_return (*file)->Named(status);
}

}  // namespace bothy::disk::tools
