#include "disk/tools/make_image.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

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

// Whether there is a file at both paths, and one at that.
bool AreSameFile(const std::string& a, const std::string& b) {
  struct stat first {};
  struct stat second {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

// InvalidArgument when an image at `path` would replace one of `files`, those of an image.
absl::Status RefuseToReplace(const std::vector<std::string>& files, const std::string& path) {
  for (const std::string& file : files) {
    if (!AreSameFile(file, path)) continue;
    if (&file == &files.front()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": can't replace itself"));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": can't be replaced, as ", files.front(), " differs from it"));
  }
  return absl::OkStatus();
}

// What a copy of the files may be at most: for nobody who couldn't read all of them.
mode_t ModeOfCopy(const std::vector<std::string>& files) {
  mode_t mode = NewImageFile::kMode;
  for (const std::string& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) continue;
    mode_t allowed = status.st_mode;
    // The copy's group is another one, for which the others' bits are.
    if (status.st_gid != ::getegid()) allowed &= ~S_IRWXG | ((allowed & S_IRWXO) << 3);
    mode &= allowed;
  }
  return mode;
}

// Of no meaning for an image without a parent.
Task<absl::StatusOr<ParentFacts>> ParentOf(IoLoop& loop, const std::string& path,
                                           const ImageSpec& spec) {
  if (spec.variant != Variant::kDifferencing) co_return ParentFacts();
  absl::StatusOr<ParentFacts> parent = co_await LookAtParent(loop, spec.parent_path, spec.type);
  if (!parent.ok()) co_return parent.status();
  const absl::Status status = RefuseToReplace(parent->files, path);
  if (!status.ok()) co_return WithContext(status, "parent_path");
  co_return parent;
}

Task<absl::Status> Prepare(IoLoop& loop, NewImageFile& file, const ImageSpec& spec,
                           const ParentFacts& parent) {
  absl::StatusOr<std::unique_ptr<Storage>> storage = co_await file.Open(loop);
  if (!storage.ok()) co_return storage.status();
  absl::Status status = co_await CreateOn(**storage, file.path(), spec, parent);
  co_return status;
}

// Of a size that nobody gave, and that the new image can't have, what to do.
absl::Status AboutSourceSize(const absl::Status& status, const Disk& from, const ImageSpec& spec) {
  const std::string field = "size_bytes: ";
  const uint64_t size = from.geometry().size_bytes;
  const uint64_t sector = spec.logical_sector_bytes;
  if (sector != 0 && size % sector != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "logical_sector_bytes: the ", size, " bytes of ", from.path(), " aren't whole sectors of ",
        sector, "; give the new image a size of ", (size / sector + 1) * sector, " bytes or more"));
  }
  const std::string message(status.message());
  const size_t at = message.find(field);
  if (at == std::string::npos) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(from.path(), ": its size doesn't fit: ", message.substr(at + field.size())));
}

Task<absl::Status> Convert(IoLoop& loop, Disk& from, const std::string& path, ImageSpec spec,
                           NewImageFile::Existing existing, const CopyOptions& options) {
  const std::vector<std::string> files = FilesOf(from);
  absl::Status status = RefuseToReplace(files, path);
  CO_RETURN_IF_ERROR(status);
  const uint64_t size = from.geometry().size_bytes;
  const bool takes_size = spec.size_bytes == 0;
  if (takes_size) spec.size_bytes = size;
  if (spec.size_bytes < size) {
    co_return absl::InvalidArgumentError(absl::StrCat(
        "size_bytes: ", spec.size_bytes, " bytes is less than the ", size, " of ", from.path()));
  }
  absl::StatusOr<ParentFacts> parent = co_await ParentOf(loop, path, spec);
  if (!parent.ok()) co_return parent.status();
  absl::StatusOr<std::unique_ptr<NewImageFile>> file =
      NewImageFile::Create(path, existing, ModeOfCopy(files));
  if (!file.ok()) co_return file.status();
  status = co_await Prepare(loop, **file, spec, *parent);
  if (takes_size && absl::IsInvalidArgument(status)) status = AboutSourceSize(status, from, spec);
  if (status.ok()) status = co_await Fill(loop, **file, from, spec, options);
  if (status.ok()) status = (*file)->Publish();
  co_return (*file)->Named(status);
}

}  // namespace

Task<absl::Status> CreateImage(IoLoop& loop, const std::string& path, ImageSpec spec,
                               NewImageFile::Existing existing) {
  absl::StatusOr<ParentFacts> parent = co_await ParentOf(loop, path, spec);
  if (!parent.ok()) co_return parent.status();
  absl::StatusOr<std::unique_ptr<NewImageFile>> file = NewImageFile::Create(path, existing);
  if (!file.ok()) co_return file.status();
  absl::Status status = co_await Prepare(loop, **file, spec, *parent);
  if (status.ok()) status = (*file)->Publish();
  co_return (*file)->Named(status);
}

Task<absl::Status> ConvertImage(IoLoop& loop, const Source& source, const std::string& path,
                                ImageSpec spec, NewImageFile::Existing existing,
                                const CopyOptions& options) {
  OpenImageOptions open;
  open.read_only = true;
  absl::StatusOr<std::unique_ptr<Disk>> from =
      co_await OpenImage(loop, source.path, source.type, open);
  if (!from.ok()) co_return from.status();
  absl::Status status = co_await Convert(loop, **from, path, std::move(spec), existing, options);
  absl::Status closed = co_await (*from)->Close();
  co_return status.ok() ? closed : status;
}

}  // namespace bothy::disk::tools
