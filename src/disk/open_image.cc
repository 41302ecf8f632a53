#include "disk/open_image.h"

#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "disk/followed_link.h"
#include "disk/host_storage.h"
#include "disk/parent.h"
#include "disk/raw/raw_disk.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk {
namespace {

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenFormat(IoLoop& loop,
                                                       std::unique_ptr<Storage> storage,
                                                       ImageType type, OpenImageOptions how,
                                                       uint32_t depth);

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenParent(IoLoop& loop, ParentReference reference,
                                                       ImageType type, uint32_t depth) {
  if (depth >= kMaxChainLength) {
    co_return absl::InvalidArgumentError(absl::StrCat(reference.child_path,
                                                      ": a chain of more than ", kMaxChainLength,
                                                      " images; do they refer to each other?"));
  }
  absl::StatusOr<std::unique_ptr<Storage>> file =
      co_await OpenParentFile(loop, std::move(reference), true);
  if (!file.ok()) co_return file.status();
  absl::StatusOr<std::unique_ptr<Disk>> parent =
      co_await OpenFormat(loop, *std::move(file), type, {.read_only = true}, depth);
  co_return parent;
}

ParentOpener OpenerOf(IoLoop& loop, ImageType type, uint32_t depth) {
  return [&loop, type, depth](const ParentReference& reference) {
    return OpenParent(loop, reference, type, depth + 1);
  };
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenFormat(IoLoop& loop,
                                                       std::unique_ptr<Storage> storage,
                                                       ImageType type, OpenImageOptions how,
                                                       uint32_t depth) {
  switch (type) {
    case ImageType::kRaw:
      co_return OpenRawDisk(std::move(storage));
    case ImageType::kVhd1: {
      vhd1::OpenOptions options;
      options.read_only = how.read_only;
      options.without_parent = how.without_parent;
      options.open_parent = OpenerOf(loop, type, depth);
      absl::StatusOr<std::unique_ptr<Disk>> disk =
          co_await vhd1::Open(std::move(storage), std::move(options));
      co_return disk;
    }
    case ImageType::kVhdx: {
      vhdx::OpenOptions options;
      options.read_only = how.read_only;
      options.without_parent = how.without_parent;
      options.open_parent = OpenerOf(loop, type, depth);
      absl::StatusOr<std::unique_ptr<Disk>> disk =
          co_await vhdx::Open(std::move(storage), std::move(options));
      co_return disk;
    }
  }
  co_return absl::InvalidArgumentError("no such type of image");
}

struct ForeignFormat {
  std::string_view name;
  uint64_t offset;
  std::string_view magic;
};
constexpr std::array<ForeignFormat, 5> kForeignFormats = {
    {{"qcow2", 0, "QFI\xfb"},
     {"VMDK", 0, "KDMV"},
     {"VMDK", 0, "# Disk DescriptorFile"},
     {"VDI", 64, "\x7f\x10\xda\xbe"},
     {"QED", 0, std::string_view("QED\0", 4)}}};

// InvalidArgument for an image of one of those.
Task<absl::Status> RefuseForeign(Storage& storage) {
  std::array<char, 512> bytes{};
  if (storage.size() < bytes.size()) co_return absl::OkStatus();
  const std::span<uint8_t> target(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
  absl::Status status = co_await ReadAt(storage, 0, target);
  CO_RETURN_IF_ERROR(status);
  const std::string_view begin(bytes.data(), bytes.size());
  for (const ForeignFormat& format : kForeignFormats) {
    if (!begin.substr(format.offset).starts_with(format.magic)) continue;
    co_return absl::InvalidArgumentError(
        absl::StrCat(storage.path(), ": begins as a ", std::string(format.name),
                     " image, which isn't supported; `qemu-img convert` makes it one that is"));
  }
  co_return absl::OkStatus();
}

}  // namespace

std::optional<ImageType> TypeOfEnding(const std::string& path) {
  const std::string ending =
      absl::AsciiStrToLower(std::filesystem::path(path).extension().string());
  if (ending == ".vhdx" || ending == ".avhdx") return ImageType::kVhdx;
  if (ending == ".vhd" || ending == ".avhd") return ImageType::kVhd1;
  if (ending == ".raw" || ending == ".img") return ImageType::kRaw;
  return std::nullopt;
}

std::string_view NameOf(ImageType type) {
  switch (type) {
    case ImageType::kRaw:
      return "raw";
    case ImageType::kVhd1:
      return "vhd1";
    case ImageType::kVhdx:
      return "vhdx";
  }
  return "unknown";
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenImage(IoLoop& loop, std::string path,
                                                      ImageType type, OpenImageOptions options) {
  HostStorageOptions storage_options;
  storage_options.path = std::move(path);
  storage_options.read_only = options.read_only;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(storage_options));
  if (!storage.ok()) co_return storage.status();
  absl::StatusOr<std::unique_ptr<Disk>> disk =
      co_await OpenFormat(loop, *std::move(storage), type, options, 0);
  co_return disk;
}

Task<absl::StatusOr<std::unique_ptr<Storage>>> OpenParentFile(IoLoop& loop,
                                                              ParentReference reference,
                                                              bool read_only) {
  // One that leads nowhere by now is as good as none.
  const std::string child = FollowedLink(reference.child_path).value_or(reference.child_path);
  const std::filesystem::path folder = std::filesystem::path(child).parent_path();
  std::vector<std::string> tried;
  for (const std::string& candidate : reference.candidate_paths) {
    HostStorageOptions options;
    // An absolute candidate stays what it is.
    options.path = (folder / candidate).lexically_normal().string();
    options.read_only = read_only;
    tried.push_back(options.path);
    absl::StatusOr<std::unique_ptr<Storage>> storage =
        co_await OpenHostStorage(loop, std::move(options));
    if (!absl::IsNotFound(storage.status())) co_return storage;
  }
  co_return absl::NotFoundError(
      absl::StrCat(reference.child_path, ": its parent isn't at ", absl::StrJoin(tried, " nor at "),
                   " (the image calls it ", absl::StrJoin(reference.spelled_paths, " or "), ")"));
}

ParentOpener ReadOnlyParents(IoLoop& loop, ImageType type) { return OpenerOf(loop, type, 0); }

Task<absl::StatusOr<ImageType>> DetectImageType(IoLoop& loop, std::string path) {
  HostStorageOptions options;
  options.path = std::move(path);
  options.read_only = true;
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return storage.status();
  const std::optional<ImageType> ending = TypeOfEnding((*storage)->path());
  struct stat file {};
  if (::fstat((*storage)->fd(), &file) == 0 && S_ISBLK(file.st_mode)) co_return ImageType::kRaw;
  if (!ending.has_value() || *ending == ImageType::kRaw) {
    absl::Status status = co_await RefuseForeign(**storage);
    CO_RETURN_IF_ERROR(status);
  }
  if (ending == ImageType::kRaw) co_return ImageType::kRaw;
  absl::StatusOr<bool> is_vhdx = co_await vhdx::Probe(**storage);
  if (!is_vhdx.ok()) co_return is_vhdx.status();
  if (*is_vhdx) co_return ImageType::kVhdx;
  absl::StatusOr<bool> is_vhd1 = co_await vhd1::Probe(**storage);
  if (!is_vhd1.ok()) co_return is_vhd1.status();
  if (*is_vhd1) co_return ImageType::kVhd1;
  if (!ending.has_value()) co_return ImageType::kRaw;
  const std::string name(NameOf(*ending));
  co_return absl::DataLossError(absl::StrCat((*storage)->path(), ": its name says ", name,
                                             ", but it has no ", absl::AsciiStrToUpper(name),
                                             " signature"));
}

}  // namespace bothy::disk
