// The three formats behind one set of functions, as tools need them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "disk/check_report.h"
#include "disk/disk.h"
#include "disk/open_image.h"
#include "disk/parent.h"
#include "disk/storage.h"
#include "support/guid.h"
#include "support/io_loop.h"
#include "support/task.h"

namespace bothy::disk::tools {

enum class Variant : uint8_t { kFixed, kDynamic, kDifferencing };

// "fixed", "dynamic", "differencing".
[[nodiscard]] std::string_view NameOf(Variant variant);

// `status` with the name at the beginning of its message there once, where several layers put it.
[[nodiscard]] absl::Status NamedOnce(const absl::Status& status, const std::string& path);

// What an image shall be like. Zero: the format's default, or what the source or parent has. Errors
// about a field are InvalidArgument and begin with its name and ": ".
struct ImageSpec {
  ImageType type = ImageType::kVhdx;
  Variant variant = Variant::kDynamic;
  uint64_t size_bytes = 0;
  uint32_t block_size_bytes = 0;
  uint32_t logical_sector_bytes = 0;
  // kDifferencing: the parent's file, by this process's folder.
  std::string parent_path;
};

// An image that is there.
struct Source {
  std::string path;
  ImageType type = ImageType::kRaw;
};

// By the name's ending: .vhdx, .vhd, .avhdx, .avhd; .raw and .img are raw. InvalidArgument for any
// other.
absl::StatusOr<ImageType> TypeOfName(const std::string& path);

// What a child has to know of its parent.
struct ParentFacts {
  Geometry geometry;
  Guid linkage;
  std::optional<Guid> identity;
  int64_t modified_time = 0;       // seconds since 1970
  std::vector<std::string> files;  // FilesOf
};
// The files of an image and of what it differs from.
[[nodiscard]] std::vector<std::string> FilesOf(const Disk& image);
// InvalidArgument when such an image can't be a parent.
Task<absl::StatusOr<ParentFacts>> LookAtParent(IoLoop& loop, const std::string& path,
                                               ImageType type);

// Makes `storage` an image that will be at `path`, which decides how its parent is spelled.
// `parent` is for differencing ones.
Task<absl::Status> CreateOn(Storage& storage, const std::string& path, const ImageSpec& spec,
                            const ParentFacts& parent);

// Opens an image on a storage that is open; `open_parent` as in parent.h.
Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenOn(std::unique_ptr<Storage> storage, ImageType type,
                                                   bool read_only, ParentOpener open_parent);

// An image as far as it can be looked at.
struct Look {
  std::unique_ptr<Disk> disk;  // read-only
  // Why there is no parent, where there should be one; then only facts and geometry are good.
  absl::Status parent;
};
Task<absl::StatusOr<Look>> LookAt(IoLoop& loop, const Source& source);

using TableProgress = std::function<void(uint64_t done, uint64_t total)>;

// Parents aren't looked at, but one that can't be opened is a problem. Of a raw image there is
// little to be said: that it is whole sectors, of which the first and the last can be read.
Task<absl::StatusOr<CheckReport>> CheckImage(IoLoop& loop, const std::string& path, ImageType type,
                                             const TableProgress& progress);
// Nothing of a raw image is changed.
Task<absl::StatusOr<CheckReport>> RepairImage(IoLoop& loop, const std::string& path, ImageType type,
                                              const TableProgress& progress);
struct ResizeSpec {
  uint64_t size_bytes = 0;
  // Whether data may be cut off; without it that is FailedPrecondition.
  bool discard_data = false;
  // Of a VHDX: the linkage that it gets (vhdx::ResizeOptions).
  Guid next_linkage = {};
  TableProgress progress = nullptr;
  // Heard until the first change: Cancelled. What has begun is finished.
  std::stop_token stop = {};
};
// FailedPrecondition for a block device.
Task<absl::Status> ResizeImage(IoLoop& loop, const Source& source, ResizeSpec spec);

}  // namespace bothy::disk::tools
