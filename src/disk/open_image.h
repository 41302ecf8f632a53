// OpenImage: a disk from a path: the storage, the format on it, and for a differencing image the
// whole chain of its parents.
//
//   absl::StatusOr<std::unique_ptr<Disk>> disk =
//       co_await OpenImage(loop, "/images/a.vhdx", ImageType::kVhdx, options);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "disk/disk.h"
#include "disk/parent.h"
#include "disk/storage.h"
#include "support/io_loop.h"

namespace bothy::disk {

enum class ImageType : uint8_t { kRaw, kVhd1, kVhdx };

// "raw", "vhd1", "vhdx".
[[nodiscard]] std::string_view NameOf(ImageType type);

struct OpenImageOptions {
  bool read_only = false;
  // Leaves the parent of a differencing image alone: only facts and geometry are good.
  bool without_parent = false;
};

// Parents are opened read-only, whatever the options say. NotFound (also for a parent, listing the
// paths that were tried), PermissionDenied, FailedPrecondition (in use; the parent isn't the one
// the image was made for), InvalidArgument (not such an image), DataLoss (corrupt). Messages begin
// with the path of the file they are about. `loop` outlives the disk; all of it happens on its
// thread.
Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenImage(IoLoop& loop, std::string path,
                                                      ImageType type, OpenImageOptions options);

// The file of a parent. The first of the paths at which there is something decides, whatever that
// turns out to be: were a file passed over that isn't what the child was made for, another folder's
// image could be taken for it. Relative ones are meant from the child's folder; of a child that is
// a symbolic link, from that of its file. NotFound names the child and the paths that were tried.
Task<absl::StatusOr<std::unique_ptr<Storage>>> OpenParentFile(IoLoop& loop,
                                                              ParentReference reference,
                                                              bool read_only);
// Opens parents, and theirs, as OpenImage does.
[[nodiscard]] ParentOpener ReadOnlyParents(IoLoop& loop, ImageType type);

// By the name's ending: .vhdx, .avhdx, .vhd, .avhd; .raw and .img are raw. Nothing for others.
[[nodiscard]] std::optional<ImageType> TypeOfEnding(const std::string& path);

// What an image is that nobody has told the format of: .raw, .img and block devices are raw, and
// never one of the formats that there are here: who owns such a disk, a guest, doesn't choose its
// format. Others are what their contents say: a VHDX or a VHD1 has a signature, everything else is
// raw.
//
// A file that begins as an image of a format that isn't supported (qcow2, VMDK, VDI, QED) is
// InvalidArgument, .raw and .img too: more likely it has the wrong name than a guest that writes
// such things, and as a raw disk it would be damaged. Whoever knows better says that it is raw, and
// doesn't ask. DataLoss for a name of a VHDX or VHD1 without either signature.
Task<absl::StatusOr<ImageType>> DetectImageType(IoLoop& loop, std::string path);

}  // namespace bothy::disk
