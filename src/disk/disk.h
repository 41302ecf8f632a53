// Disk: a virtual disk: sectors that can be read, written, flushed, discarded and zeroed.
//
// Formats implement it over a Storage; a differencing disk has another Disk as its parent. A disk
// belongs to the thread of its loop: every method there, no locks. Any number of requests may be in
// flight.
//
//   std::unique_ptr<Disk> disk = ...;               // disk/open_image.h
//   absl::Status s = co_await WriteAt(*disk, 4096, bytes);
//   s = co_await Flush(*disk);
//   s = co_await disk->Close();
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "disk/request.h"
#include "support/guid.h"

namespace bothy::disk {

struct Geometry {
  uint64_t size_bytes = 0;                // a multiple of logical_sector_bytes
  uint32_t logical_sector_bytes = 512;    // what requests are multiples of
  uint32_t physical_sector_bytes = 4096;  // what is written without reading first
  // What discard gives back, in bytes: less than one aligned unit of it frees nothing. 0: discard
  // does nothing here.
  uint32_t discard_granularity_bytes = 0;
  bool read_only = false;
  bool operator==(const Geometry&) const = default;
};

// Where a run of the disk's bytes lies, for mapping it into a guest.
struct Extent {
  enum class Kind : uint8_t {
    kZero,    // unallocated: reads as zero
    kFile,    // at `file_offset` of `fd`
    kOpaque,  // only requests get at it (an unaligned, partly present or log-pending block)
  };
  Kind kind = Kind::kOpaque;
  uint64_t length = 0;  // bytes from the offset asked for, at least one sector
  int fd = -1;
  uint64_t file_offset = 0;
  // kFile: whether the file is this disk's own and may be written; false for a parent's block.
  bool writable = false;
};

// Where the contents of a run are kept: for copying no more than there is, and for committing a
// differencing disk into its parent.
struct Presence {
  enum class Kind : uint8_t {
    kHere,    // in this disk's own file
    kZero,    // nowhere: this disk says that it reads as zero, whatever a parent holds
    kParent,  // as the parent has it; zero past the parent's end
  };
  Kind kind = Kind::kHere;
  uint64_t length = 0;  // bytes from the offset asked for, at least one sector
};

// Facts of a format for inspection and `bothyctl disk info`, in the order they are shown.
struct Fact {
  std::string name;  // "block_size_bytes"
  std::variant<bool, uint64_t, std::string, std::vector<std::string>> value;
};

class Disk {
 public:
  // Only after Close, or when the disk was never written to.
  virtual ~Disk() = default;

  // Unaligned or out of range requests are InvalidArgument, writes to a read-only disk
  // PermissionDenied, a full host ResourceExhausted, a corrupt image DataLoss. An error leaves the
  // disk usable; what a failed write covers may hold the old or the new bytes.
  virtual void Submit(Request& request) = 0;
  [[nodiscard]] virtual const Geometry& geometry() const = 0;

  // The extent that begins at `offset`. Stays true until the next write, discard or resize there;
  // writing to mapped pages of a kFile extent is writing to the disk.
  virtual Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) = 0;

  // A flush for who stores to the memory of kFile extents: such stores are durable, too, when it
  // says OK. Their file is flushed by nobody else, as the host tells of what it lost but once; here
  // it is told even when a flush of the disk's own heard of it.
  struct MappedSync {
    absl::Status status;
    // The host may have dropped stores, and won't write them later. False: a flush that failed
    // before it came to them, of a full host for one; they are synced by the next.
    bool stores_lost = false;
  };
  virtual Task<MappedSync> SyncMapped();

  // The run of one kind that begins at `offset`, or a part of it. Only costs looking at tables.
  virtual Task<absl::StatusOr<Presence>> FindPresence(uint64_t offset) {
    co_return Presence{.kind = Presence::Kind::kHere, .length = geometry().size_bytes - offset};
  }

  // Waits for what the format does on its own after requests have ended: metadata being committed,
  // space being given back. Unless there is a request, nothing changes in the file afterwards. No
  // request may be in flight or come meanwhile. What fails here the next flush makes good or tells.
  virtual Task<void> Settle() { co_return; }

  // Looks again at the image, whose file somebody grew (a raw file, a block device); geometry() is
  // new afterwards.
  virtual absl::Status Refresh() { return absl::OkStatus(); }

  // Flushes and leaves the image as a clean one. No request may be in flight or follow. The disk
  // can only be destroyed afterwards, also when this fails.
  virtual Task<absl::Status> Close() = 0;

  // "raw", "vhd1", "vhdx".
  [[nodiscard]] virtual std::string_view format() const = 0;
  [[nodiscard]] virtual const std::string& path() const = 0;
  [[nodiscard]] virtual std::vector<Fact> Facts() const = 0;
  // The disk this one differs from, or null.
  [[nodiscard]] virtual const Disk* parent() const { return nullptr; }
  // What the guest can know the disk by: the format's own identity, or none.
  [[nodiscard]] virtual std::optional<Guid> identity() const { return std::nullopt; }
  // What a differencing image records of the disk it differs from, so that it notices when the
  // parent isn't what it was: the DataWriteGuid of a VHDX.
  [[nodiscard]] virtual std::optional<Guid> linkage() const { return std::nullopt; }
};

// InvalidArgument, naming the offset, unless `request` is a whole number of sectors within the
// disk, its buffers add up, and its operation is one that the disk allows (PermissionDenied).
absl::Status CheckRequest(const Geometry& geometry, const Request& request);

}  // namespace bothy::disk
