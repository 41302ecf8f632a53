#include "cmd/bothyctl/image_type.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "disk/open_image.h"
#include "support/io_loop.h"
#include "support/task.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::DiskType;

absl::StatusOr<disk::ImageType> Detect(const std::string& path) {
  // A few reads: not worth a ring.
  ASSIGN_OR_RETURN(const std::unique_ptr<IoLoop> loop,
                   IoLoop::Create({.engine = IoLoop::Engine::kThreadPool, .pool_threads = 1}));
  std::optional<absl::StatusOr<disk::ImageType>> type;
  Start(disk::DetectImageType(*loop, path),
        [&type](absl::StatusOr<disk::ImageType> found) { type = std::move(found); });
  loop->RunUntil([&type] { return type.has_value(); });
  return *std::move(type);
}

DiskType ByName(const std::string& path) {
  const std::string name = absl::AsciiStrToLower(path);
  if (name.ends_with(".vhdx") || name.ends_with(".avhdx")) return ::vmservice::SCSI_DISK_TYPE_VHDX;
  if (name.ends_with(".vhd") || name.ends_with(".avhd")) return ::vmservice::SCSI_DISK_TYPE_VHD1;
  return ::vmservice::SCSI_DISK_TYPE_PHYSICAL;
}

}  // namespace

const Choices<DiskType>& DiskTypes() {
  static const auto* const types =
      new Choices<DiskType>{{"vhd", ::vmservice::SCSI_DISK_TYPE_VHD1},
                            {"vhdx", ::vmservice::SCSI_DISK_TYPE_VHDX},
                            {"raw", ::vmservice::SCSI_DISK_TYPE_PHYSICAL}};
  return *types;
}

absl::StatusOr<DiskType> GuessDiskType(const std::string& path, const std::string& as_raw) {
  const absl::StatusOr<disk::ImageType> type = Detect(path);
  std::error_code error;
  if (absl::IsInvalidArgument(type.status()) && std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(type.status().message(), "; ", as_raw, " takes it as it is"));
  }
  if (!type.ok()) return ByName(path);
  switch (*type) {
    case disk::ImageType::kVhd1:
      return ::vmservice::SCSI_DISK_TYPE_VHD1;
    case disk::ImageType::kVhdx:
      return ::vmservice::SCSI_DISK_TYPE_VHDX;
    case disk::ImageType::kRaw:
      break;
  }
  return ::vmservice::SCSI_DISK_TYPE_PHYSICAL;
}

}  // namespace bothy::bothyctl
