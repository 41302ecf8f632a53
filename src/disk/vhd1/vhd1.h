// VHD images, version 1 (Virtual Hard Disk Image Format Specification, Microsoft, 2006), here VHD1.
//
//   std::unique_ptr<Storage> storage = ...;
//   absl::StatusOr<std::unique_ptr<Disk>> disk =
//       co_await vhd1::Open(std::move(storage), std::move(options));
//
// Everything on the thread of the storage's loop. What is durable when, and what a crash leaves, is
// told in dynamic_disk.h.
//
// Errors about an image's contents are DataLoss (it isn't what it was written as) or
// InvalidArgument (a feature or a size that isn't supported) and read "PATH: offset N: FIELD:
// what".
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "disk/check_report.h"
#include "disk/disk.h"
#include "disk/parent.h"
#include "disk/storage.h"
#include "support/guid.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint64_t kMaxDiskBytes = uint64_t{2040} << 30;
// What is made here; other powers of two from 4 KiB to 256 MiB are read and written all the same.
inline constexpr uint32_t kMinBlockBytes = 512 << 10;
inline constexpr uint32_t kMaxBlockBytes = 256 << 20;
inline constexpr uint32_t kDefaultBlockBytes = 2 << 20;
// Blocks of one image: what bounds the memory its table can take.
inline constexpr uint32_t kMaxBlocks = 4 << 20;

struct OpenOptions {
  bool read_only = false;  // the file isn't changed in any way
  // For differencing images. Without it they are FailedPrecondition.
  ParentOpener open_parent;
  // Leaves the parent alone, for a look at the image's own facts: only Facts and geometry are good.
  bool without_parent = false;
  // Bound of the sector bitmaps kept in memory that could be read again, in bytes.
  uint32_t cache_bytes = 4 << 20;
};

// Parents are opened here and owned by the disk. FailedPrecondition names both identifiers when the
// parent isn't the one the child was made for. Its modification time, which the format records as
// well, isn't compared, nor does Hyper-V: copying an image changes it.
//
// The disk's size is the footer's Current Size, as for Hyper-V. The exception are images whose
// Creator Application is "qemu", which shows guests what the geometry amounts to.
Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(std::unique_ptr<Storage> storage,
                                                 OpenOptions options);

enum class Type : uint8_t { kFixed, kDynamic, kDifferencing };

// How a differencing image will find and know its parent.
struct ParentSpelling {
  std::string relative_path;  // POSIX form, relative to the child's folder; at least one of the two
  std::string absolute_path;
  Guid linkage = {};          // the parent's Disk::linkage()
  int64_t modified_time = 0;  // the parent file's, in seconds since 1970; for information
};

struct CreateOptions {
  uint64_t size_bytes = 0;  // a multiple of 512, at least one, at most kMaxDiskBytes
  Type type = Type::kDynamic;
  uint32_t block_size_bytes = 0;  // a power of two, kMinBlockBytes..kMaxBlockBytes; 0: the default
  Guid disk_id = {};              // zero: a fresh one
  ParentSpelling parent = {};     // kDifferencing
};

// Makes `storage`, whatever it held, an image; durable on return. A fixed image's contents take no
// room before they are written.
Task<absl::Status> Create(Storage& storage, const CreateOptions& options);

// Called now and then with what is done and what there is to do, in bytes.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

// Examines an image without changing it. Everything the image does wrong is a problem in the
// report; a status is only returned when the storage fails. Doesn't look at parents.
Task<absl::StatusOr<CheckReport>> Check(Storage& storage, Progress progress = nullptr);

// Puts right what can be: restores the footer and its copy, finds the footer of a fixed image that
// lost its own, gives blocks that share space their own copy, fills up with zeros what the file's
// end cuts off of blocks, lets blocks that lie past it read as never written, drops blocks past the
// disk's end, and gives back space that nothing refers to. Returns what Check found before.
Task<absl::StatusOr<CheckReport>> Repair(Storage& storage, Progress progress = nullptr);

struct ResizeOptions {
  uint64_t size_bytes = 0;
  // Whether shrinking may cut off anything but zeros; without it that is FailedPrecondition.
  bool discard_data = false;
  Progress progress = nullptr;
  // Heard until the first change: Cancelled. What has begun is finished.
  std::stop_token stop = {};
  // For differencing images, as OpenOptions::open_parent: how far it reaches matters to one that
  // grows, what it holds to one that shrinks without discard_data.
  ParentOpener open_parent = nullptr;
};
// A footer that differs from its copy, as an interrupted one leaves them, is put right. New space
// reads as zero, also after a Resize that was interrupted; in a differencing image it takes blocks
// as far as the parent reaches, which it hides. One that is interrupted leaves the old size or the
// new one, and perhaps room that nothing refers to, which of a fixed image the same call again, or
// a later one, gives back. One that fails gives it back itself, as far as the storage lets it.
Task<absl::Status> Resize(Storage& storage, const ResizeOptions& options);

// Changes what a differencing image says of its parent; paths that are empty stay as they are, and
// so does a linkage of zero.
Task<absl::Status> SetParentLinkage(Storage& storage, const ParentSpelling& parent);

// Whether the storage has a VHD1 footer at its end or the copy of one at its beginning.
Task<absl::StatusOr<bool>> Probe(Storage& storage);

}  // namespace bothy::disk::vhd1
