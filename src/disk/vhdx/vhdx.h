// VHDX images, version 2 of the virtual hard disk format ([MS-VHDX], v20240423).
//
//   std::unique_ptr<Storage> storage = ...;
//   absl::StatusOr<std::unique_ptr<Disk>> disk =
//       co_await vhdx::Open(std::move(storage), std::move(options));
//
// Everything on the thread of the storage's loop. What is durable when, and why an image survives
// being cut off at any point, is told in docs/vhdx.md.
//
// Errors about an image's contents are DataLoss (it isn't what it was written as) or
// InvalidArgument (a feature or a size that isn't supported) and read "PATH: offset N: FIELD:
// what".
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "disk/check_report.h"
#include "disk/disk.h"
#include "disk/parent.h"
#include "disk/storage.h"
#include "support/guid.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

inline constexpr uint64_t kMaxDiskBytes = uint64_t{64} << 40;  // [MS-VHDX] 2.6.2.2
inline constexpr uint32_t kMinBlockBytes = 1 << 20;            // [MS-VHDX] 2.6.2.1
inline constexpr uint32_t kMaxBlockBytes = 256 << 20;
inline constexpr uint32_t kDefaultBlockBytes = 32 << 20;

struct OpenOptions {
  // The file isn't changed in any way: a log that an unclean end left is replayed in memory.
  bool read_only = false;
  // For differencing images. Without it they are FailedPrecondition.
  ParentOpener open_parent;
  // The DataWriteGuid that the first change gives the image; zero: a fresh one. Set for a parent
  // into which a child is committed, after SetParentLinkage has told the child of it.
  Guid next_linkage;
  // Leaves the parent alone, for a look at the image's own facts: only Facts and geometry are good.
  bool without_parent = false;
  // Bound of the table pages kept in memory that could be read again, in bytes.
  uint32_t cache_bytes = 8 << 20;
};

// The geometry's discard granularity is that of the host's holes. Parents are opened here and owned
// by the disk. FailedPrecondition names both GUIDs when the parent isn't the one the child was made
// for.
Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(std::unique_ptr<Storage> storage,
                                                 OpenOptions options);

enum class Type : uint8_t { kFixed, kDynamic, kDifferencing };

// How a differencing image will find and know its parent. POSIX paths ("../base.vhdx",
// "/images/base.vhdx") are spelled as the format wants it, with backslashes and "\\?\" before an
// absolute one; those that begin with "\\?\" or "." and a backslash are taken as they are.
struct ParentSpelling {
  std::string relative_path;  // at least one of the two
  std::string absolute_path;
  Guid linkage;  // the parent's Disk::linkage()
};

struct CreateOptions {
  uint64_t size_bytes = 0;  // a multiple of the logical sector, at least one, at most kMaxDiskBytes
  Type type = Type::kDynamic;
  uint32_t block_size_bytes = 0;  // a power of two, kMinBlockBytes..kMaxBlockBytes; 0: the default
  uint32_t logical_sector_bytes = 512;    // 512 or 4096; a child's is its parent's
  uint32_t physical_sector_bytes = 4096;  // 512 or 4096
  Guid disk_id;                           // zero: a fresh one. A child's is its parent's identity()
  ParentSpelling parent;                  // kDifferencing
};

// Makes `storage`, whatever it held, an image; durable on return. Costs the same for any size
// (a fixed image's table grows with it); blocks of a fixed image are zero and take no room where
// the storage has holes.
Task<absl::Status> Create(Storage& storage, const CreateOptions& options);

// Called now and then with what is done and what there is to do, in bytes of tables or data.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

// Examines an image without changing it. Everything the image does wrong is a problem in the
// report; a status is only returned when the storage fails.
Task<absl::StatusOr<CheckReport>> Check(Storage& storage, Progress progress = nullptr);

// Puts right what can be: replays the log, restores the copies of headers and region table, clears
// reserved bits, gives blocks that share space their own copy, extends a file that was cut short
// within a block with zeros, lets blocks that lie wholly outside the file read as zero, and gives
// back space that nothing refers to. Where blocks were lost their data may be in that space, so
// that it stays as it is until the next repair. Returns what Check found before.
Task<absl::StatusOr<CheckReport>> Repair(Storage& storage, Progress progress = nullptr);

struct ResizeOptions {
  uint64_t size_bytes = 0;
  // Whether shrinking may cut off anything but zeros; without it that is FailedPrecondition.
  bool discard_data = false;
  Progress progress = nullptr;
  // Heard until the first change: Cancelled. What has begun is finished.
  std::stop_token stop = {};
  // The DataWriteGuid that the image gets; zero: a fresh one. As OpenOptions::next_linkage.
  Guid next_linkage = {};
  // For differencing images, as OpenOptions::open_parent: how far it reaches matters to one that
  // grows, what it holds to one that shrinks without discard_data.
  ParentOpener open_parent = nullptr;
};
// Children of the image are good no longer, unless they know next_linkage: the DataWriteGuid
// changes. New space reads as zero, which in a differencing image hides what its parent has there.
// DataLoss, and nothing is changed, when an entry of the BAT can't be true.
Task<absl::Status> Resize(Storage& storage, const ResizeOptions& options);

// Changes what a differencing image says of its parent; paths that are empty stay as they are.
struct LinkageUpdate {
  Guid linkage;  // zero: as it is
  // What the parent's linkage may become: for a commit, which changes the parent. The image is
  // good for either from then on ([MS-VHDX] 2.6.2.6.3, parent_linkage2).
  std::optional<Guid> linkage2;  // zero removes it
  std::string relative_path;
  std::string absolute_path;
};
Task<absl::Status> SetParentLinkage(Storage& storage, const LinkageUpdate& update);

// Whether the storage begins with the signature of a VHDX file.
Task<absl::StatusOr<bool>> Probe(Storage& storage);

}  // namespace bothy::disk::vhdx
