#include "disk/tools/image_format.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/data_survey.h"
#include "disk/host_storage.h"
#include "disk/raw/raw_disk.h"
#include "disk/utf16.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"
#include "disk/windows_path.h"

namespace bothy::disk::tools {
namespace {

constexpr uint64_t kRawSectorBytes = 512;

vhd1::Type Vhd1Type(Variant variant) {
  return variant == Variant::kFixed     ? vhd1::Type::kFixed
         : variant == Variant::kDynamic ? vhd1::Type::kDynamic
                                        : vhd1::Type::kDifferencing;
}
vhdx::Type VhdxType(Variant variant) {
  return variant == Variant::kFixed     ? vhdx::Type::kFixed
         : variant == Variant::kDynamic ? vhdx::Type::kDynamic
                                        : vhdx::Type::kDifferencing;
}

struct Spelled {
  std::string relative;
  std::string absolute;
};

// How the image at `child` shall call its parent.
absl::StatusOr<Spelled> SpellParent(const std::string& child, const std::string& parent) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(parent, error).lexically_normal();
  if (error) return ErrnoStatus(error.value(), parent);
  // From folder to folder as they lie, whatever links the paths go through.
  const auto folder_of = [&error](const std::string& path) {
    const auto whole = std::filesystem::absolute(path, error);
    return error ? whole : std::filesystem::canonical(whole.parent_path(), error);
  };
  const auto folder = folder_of(child);
  if (error) return ErrnoStatus(error.value(), child);
  const auto parents_folder = folder_of(parent);
  if (error) return ErrnoStatus(error.value(), parent);
  const auto there = parents_folder / absolute.filename();
  for (const absl::Status& status :
       {WindowsPath(absolute.string()).status(), Utf8ToUtf16(absolute.string()).status()}) {
    if (!status.ok()) return WithContext(status, "parent_path");
  }
  return Spelled{.relative = there.lexically_relative(folder).string(),
                 .absolute = absolute.string()};
}

Task<absl::Status> CreateRaw(Storage& storage, const ImageSpec& spec) {
  if (spec.variant == Variant::kDifferencing) {
    co_return absl::InvalidArgumentError("parent_path: raw images can't differ from a parent");
  }
  if (spec.block_size_bytes != 0) {
    co_return absl::InvalidArgumentError("block_size_bytes: raw images have no blocks");
  }
  const uint64_t sector =
      spec.logical_sector_bytes == 0 ? kRawSectorBytes : spec.logical_sector_bytes;
  if (spec.size_bytes == 0 || spec.size_bytes % sector != 0) {
    co_return absl::InvalidArgumentError(absl::StrCat("size_bytes: ", spec.size_bytes,
                                                      " bytes isn't a number of whole sectors of ",
                                                      sector, " bytes"));
  }
  absl::Status status = co_await storage.Resize(spec.size_bytes);
  co_return status;
}

// One of whole sectors whose ends can be read. Reading all of it would tell more, and take as long
// as a copy does.
Task<absl::StatusOr<CheckReport>> CheckRaw(Storage& storage) {
  CheckReport report;
  struct stat status {};
  if (::fstat(storage.fd(), &status) != 0) co_return ErrnoStatus(errno, storage.path());
  report.raw = S_ISBLK(status.st_mode) ? "block device" : "file";
  const uint64_t size = storage.size();
  const uint64_t sector = storage.logical_block_bytes();
  report.file_bytes = report.allocated_bytes = report.block_size_bytes = size;
  report.blocks_total = report.blocks_allocated = 1;
  if (size == 0 || size % sector != 0) {
    report.Add({.severity = Severity::kError,
                .offset = size,
                .field = "size",
                .message = absl::StrCat(size, " bytes are no disk of whole sectors of ", sector,
                                        " bytes; grow it to ", (size / sector + 1) * sector,
                                        " with truncate -s"),
                .repairable = false});
    co_return report;
  }
  std::vector<uint8_t> bytes(sector);
  for (const uint64_t at : {uint64_t{0}, size - sector}) {
    const absl::Status read = co_await ReadAt(storage, at, std::span<uint8_t>(bytes));
    if (read.ok()) continue;
    report.Add({.severity = Severity::kError,
                .offset = at,
                .field = "data",
                .message = std::string(read.message()),
                .repairable = false});
  }
  co_return report;
}

Task<absl::Status> ResizeRaw(Storage& storage, const ResizeSpec& spec) {
  if (spec.size_bytes == 0 || spec.size_bytes % kRawSectorBytes != 0) {
    co_return absl::InvalidArgumentError(absl::StrCat("size_bytes: ", spec.size_bytes,
                                                      " bytes isn't a number of whole sectors of ",
                                                      kRawSectorBytes, " bytes"));
  }
  if (spec.size_bytes < storage.size() && !spec.discard_data) {
    SurveyOptions survey = {.progress = spec.progress, .stop = spec.stop};
    absl::Status cut = co_await RefuseToCutData(storage, spec.size_bytes, std::move(survey));
    if (!cut.ok()) co_return WithContext(cut, storage.path());
  }
  absl::Status status = co_await storage.Resize(spec.size_bytes);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

}  // namespace

std::string_view NameOf(Variant variant) {
  switch (variant) {
    case Variant::kFixed:
      return "fixed";
    case Variant::kDynamic:
      return "dynamic";
    case Variant::kDifferencing:
      return "differencing";
  }
  return "";
}

absl::Status NamedOnce(const absl::Status& status, const std::string& path) {
  const std::string name = absl::StrCat(path, ": ");
  std::string message(status.message());
  while (message.starts_with(name + name)) message.erase(0, name.size());
  return absl::Status(status.code(), message);
}

absl::StatusOr<ImageType> TypeOfName(const std::string& path) {
  if (const std::optional<ImageType> type = TypeOfEnding(path)) return *type;
  return absl::InvalidArgumentError(
      absl::StrCat(path,
                   ": its name doesn't say what format it shall have (.vhdx, .vhd, .raw or "
                   ".img)"));
}

std::vector<std::string> FilesOf(const Disk& image) {
  std::vector<std::string> files;
  for (const Disk* disk = &image; disk != nullptr; disk = disk->parent()) {
    files.push_back(disk->path());
  }
  return files;
}

Task<absl::StatusOr<Look>> LookAt(IoLoop& loop, const Source& source) {
  OpenImageOptions options;
  options.read_only = true;
  absl::StatusOr<std::unique_ptr<Disk>> whole =
      co_await OpenImage(loop, source.path, source.type, options);
  Look look;
  if (whole.ok()) {
    look.disk = *std::move(whole);
    co_return look;
  }
  look.parent = whole.status();
  options.without_parent = true;
  absl::StatusOr<std::unique_ptr<Disk>> own =
      co_await OpenImage(loop, source.path, source.type, options);
  if (!own.ok()) co_return look.parent;
  look.disk = *std::move(own);
  co_return look;
}

Task<absl::StatusOr<ParentFacts>> LookAtParent(IoLoop& loop, const std::string& path,
                                               ImageType type) {
  OpenImageOptions options;
  options.read_only = true;
  absl::StatusOr<ImageType> found = co_await DetectImageType(loop, path);
  if (absl::IsInvalidArgument(found.status())) {
    co_return WithContext(found.status(), "parent_path");
  }
  if (!found.ok()) co_return found.status();
  // A parent whose signature is damaged seems to be raw; opening it says what is wrong.
  if (*found != type && *found != ImageType::kRaw) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("parent_path: ", path, " is ", std::string(disk::NameOf(*found)),
                     ", and a child of format ", std::string(disk::NameOf(type)),
                     " needs a parent of the same; convert one of them"));
  }
  absl::StatusOr<std::unique_ptr<Disk>> parent = co_await OpenImage(loop, path, type, options);
  if (!parent.ok()) co_return parent.status();
  ParentFacts facts;
  facts.geometry = (*parent)->geometry();
  facts.files = FilesOf(**parent);
  facts.identity = (*parent)->identity();
  const std::optional<Guid> linkage = (*parent)->linkage();
  absl::Status closed = co_await (*parent)->Close();
  CO_RETURN_IF_ERROR(closed);
  if (!linkage.has_value()) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("parent_path: ", path, " is raw, and such images can't be parents"));
  }
  facts.linkage = *linkage;
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) facts.modified_time = status.st_mtime;
  co_return facts;
}

Task<absl::Status> CreateOn(Storage& storage, const std::string& path, const ImageSpec& spec,
                            const ParentFacts& parent) {
  absl::StatusOr<Spelled> spelled = Spelled();
  const bool differencing = spec.variant == Variant::kDifferencing;
  if (differencing) spelled = SpellParent(path, spec.parent_path);
  if (!spelled.ok()) co_return spelled.status();
  const uint64_t size =
      spec.size_bytes != 0 || !differencing ? spec.size_bytes : parent.geometry.size_bytes;
  absl::Status status;
  switch (spec.type) {
    case ImageType::kRaw:
      status = co_await CreateRaw(storage, spec);
      break;
    case ImageType::kVhd1: {
      if (spec.logical_sector_bytes != 0 && spec.logical_sector_bytes != vhd1::kSectorBytes) {
        co_return absl::InvalidArgumentError("logical_sector_bytes: VHD1 has sectors of 512 bytes");
      }
      vhd1::CreateOptions options;
      options.size_bytes = size;
      options.type = Vhd1Type(spec.variant);
      options.block_size_bytes = spec.block_size_bytes;
      options.parent.relative_path = spelled->relative;
      options.parent.absolute_path = spelled->absolute;
      options.parent.linkage = parent.linkage;
      options.parent.modified_time = parent.modified_time;
      status = co_await vhd1::Create(storage, options);
      break;
    }
    case ImageType::kVhdx: {
      vhdx::CreateOptions options;
      options.size_bytes = size;
      options.type = VhdxType(spec.variant);
      options.block_size_bytes = spec.block_size_bytes;
      if (differencing) {
        options.logical_sector_bytes = parent.geometry.logical_sector_bytes;
        if (parent.identity.has_value()) options.disk_id = *parent.identity;
      }
      if (spec.logical_sector_bytes != 0) options.logical_sector_bytes = spec.logical_sector_bytes;
      if (differencing && options.logical_sector_bytes != parent.geometry.logical_sector_bytes) {
        co_return absl::InvalidArgumentError(
            absl::StrCat("logical_sector_bytes: ", options.logical_sector_bytes,
                         " isn't the parent's ", parent.geometry.logical_sector_bytes));
      }
      options.parent.relative_path = spelled->relative;
      options.parent.absolute_path = spelled->absolute;
      options.parent.linkage = parent.linkage;
      status = co_await vhdx::Create(storage, options);
      break;
    }
  }
  co_return status;
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenOn(std::unique_ptr<Storage> storage, ImageType type,
                                                   bool read_only, ParentOpener open_parent) {
  switch (type) {
    case ImageType::kRaw:
      co_return OpenRawDisk(std::move(storage));
    case ImageType::kVhd1: {
      vhd1::OpenOptions options;
      options.read_only = read_only;
      options.open_parent = std::move(open_parent);
      absl::StatusOr<std::unique_ptr<Disk>> disk =
          co_await vhd1::Open(std::move(storage), std::move(options));
      co_return disk;
    }
    case ImageType::kVhdx: {
      vhdx::OpenOptions options;
      options.read_only = read_only;
      options.open_parent = std::move(open_parent);
      absl::StatusOr<std::unique_ptr<Disk>> disk =
          co_await vhdx::Open(std::move(storage), std::move(options));
      co_return disk;
    }
  }
  co_return absl::InvalidArgumentError("no such type of image");
}

Task<absl::StatusOr<CheckReport>> CheckImage(IoLoop& loop, const std::string& path, ImageType type,
                                             const TableProgress& progress) {
  HostStorageOptions options;
  options.path = path;
  options.read_only = true;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return storage.status();
  absl::StatusOr<CheckReport> report;
  if (type == ImageType::kRaw) {
    report = co_await CheckRaw(**storage);
    co_return report;
  }
  if (type == ImageType::kVhd1) report = co_await vhd1::Check(**storage, progress);
  if (type == ImageType::kVhdx) report = co_await vhdx::Check(**storage, progress);
  if (!report.ok()) co_return report;
  const Source source = {.path = path, .type = type};
  absl::StatusOr<Look> look = co_await LookAt(loop, source);
  // What keeps the image itself from being opened is in the report.
  if (!look.ok()) co_return report;
  const absl::StatusCode code = look->parent.ok() ? absl::StatusCode::kOk : look->parent.code();
  // The host's fault, not the images': nothing is known of the parent.
  const bool unknown = code == absl::StatusCode::kPermissionDenied ||
                       code == absl::StatusCode::kResourceExhausted ||
                       code == absl::StatusCode::kUnavailable;
  if (!look->parent.ok() && !unknown) {
    report->Add({.severity = Severity::kError,
                 .offset = 0,
                 .field = "parent",
                 .message = std::string(look->parent.message()),
                 .repairable = false});
  } else if (look->disk->parent() != nullptr) {
    report->parent_path = look->disk->parent()->path();
  }
  absl::Status closed = co_await look->disk->Close();
  CO_RETURN_IF_ERROR(closed);
  if (unknown) co_return WithContext(look->parent, "parent");
  co_return report;
}

Task<absl::StatusOr<CheckReport>> RepairImage(IoLoop& loop, const std::string& path, ImageType type,
                                              const TableProgress& progress) {
  absl::StatusOr<CheckReport> report;
  if (type == ImageType::kRaw) {
    report = co_await CheckImage(loop, path, type, progress);
    co_return report;
  }
  HostStorageOptions options;
  options.path = path;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return storage.status();
  if (type == ImageType::kVhd1) report = co_await vhd1::Repair(**storage, progress);
  if (type == ImageType::kVhdx) report = co_await vhdx::Repair(**storage, progress);
  if (!report.ok()) co_return NamedOnce(report.status(), path);
  co_return report;
}

Task<absl::Status> ResizeImage(IoLoop& loop, const Source& source, ResizeSpec spec) {
  struct stat file {};
  if (::stat(source.path.c_str(), &file) == 0 && S_ISBLK(file.st_mode)) {
    co_return absl::FailedPreconditionError(
        absl::StrCat(source.path,
                     ": is a block device, whose size isn't an image's to change; resize it where "
                     "it was made (lvextend, rbd resize, losetup -c)"));
  }
  HostStorageOptions options;
  options.path = source.path;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return storage.status();
  absl::Status status;
  switch (source.type) {
    case ImageType::kRaw:
      status = co_await ResizeRaw(**storage, spec);
      break;
    case ImageType::kVhd1: {
      vhd1::ResizeOptions resize;
      resize.size_bytes = spec.size_bytes;
      resize.discard_data = spec.discard_data;
      resize.progress = std::move(spec.progress);
      resize.stop = std::move(spec.stop);
      resize.open_parent = ReadOnlyParents(loop, source.type);
      status = co_await vhd1::Resize(**storage, resize);
      break;
    }
    case ImageType::kVhdx: {
      vhdx::ResizeOptions resize;
      resize.size_bytes = spec.size_bytes;
      resize.discard_data = spec.discard_data;
      resize.next_linkage = spec.next_linkage;
      resize.progress = std::move(spec.progress);
      resize.stop = std::move(spec.stop);
      resize.open_parent = ReadOnlyParents(loop, source.type);
      status = co_await vhdx::Resize(**storage, resize);
      break;
    }
  }
  co_return NamedOnce(status, source.path);
}

}  // namespace bothy::disk::tools
