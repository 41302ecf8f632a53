// PmemWindow: a disk as byte-addressable memory: a range of this process's addresses that a memory
// slot shows to a guest, whose contents are the disk's.
//
// Page for page in one of two ways (docs/pmem.md):
//   mapped   the image file itself (MAP_SHARED), where the disk's bytes lie page-aligned and
//            allocated in it. A store is a store to the file; a flush is fdatasync.
//   demand   anonymous pages, everywhere else: unallocated blocks, a parent's blocks, blocks that
//            aren't page-aligned, holes of sparse files (a store into a mapped hole would be SIGBUS
//            when the host is full). Filled from the disk when they are first touched; stores are
//            tracked with userfaultfd's write protection, so those of vCPUs, of host threads and of
//            the host kernel all count; a flush writes changed pages to the disk. Pages that the
//            disk has got room for are mapped afterwards.
// Stores that the kernel doesn't fault on aren't seen: pages must not stay pinned for DMA (VFIO,
// O_DIRECT) across a flush.
//
// What is durable: all that was stored before Flush began, when Flush says OK. Anything else may or
// may not be in the image; a page that is stored to while it is written may be there in part.
//
// When the image can't be read, or a mapped file was truncated, no status can reach the guest
// through memory: the page reads as zero, the window has failed (failure()), and every flush from
// then on says so; lost pages are never written back.
//
// Threads: Create, Flush, Close on the loop's thread, which never touches a page of the window that
// isn't there. host() may be accessed by any thread but the loop's; state(), failure(),
// NoteRefusedStore and OnFault are for any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/wait_list.h"
#include "inspect/node.h"
#include "support/io_loop.h"
#include "support/mapping.h"
#include "support/task.h"
#include "virtio/pmem/demand_pages.h"
#include "virtio/pmem/file_mappings.h"
#include "virtio/pmem/file_watch.h"
#include "virtio/pmem/flush_group.h"
#include "virtio/pmem/pmem_device.h"
#include "virtio/pmem/sigbus_guard.h"

namespace bothy::virtio {

// What a guest needs of the window's guest-physical address and gets of its size: Linux refuses
// persistent memory whose start or end isn't a multiple of a memory section's part (2 MiB on x86).
// A disk of another size is followed by padding, which reads as zero, is stored nowhere, and makes
// flushes fail once the guest has stored anything but zero there.
inline constexpr uint64_t kPmemAlignment = uint64_t{2} << 20;

struct PmemWindowOptions {
  std::string name;  // "pmem0", for logs and the fault thread
  // Bounds what the window takes of vm.max_map_count (65530 a process); past it pages are demand
  // pages.
  uint32_t max_mappings = 4096;
  // False: that a file was truncated is only seen by faults and flushes, as on network file
  // systems.
  bool watch_files = true;
  // Called on the loop's thread, once, when the window fails.
  std::function<void(const absl::Status&)> on_failure = {};
};

class PmemWindow final : public Flushable {
 public:
  // Takes the disk, which nobody else may use any more. `loop` outlives the window. When it fails
  // the disk is closed and nothing is left. FailedPrecondition, with what to do, when pages are
  // needed on demand and the host forbids userfaultfd; ResourceExhausted when there is no room in
  // the address space.
  static Task<absl::StatusOr<std::unique_ptr<PmemWindow>>> Create(IoLoop& loop,
                                                                  std::unique_ptr<disk::Disk> disk,
                                                                  PmemWindowOptions options);
  // After Close.
  ~PmemWindow() override;

  // Of a multiple of kPmemAlignment bytes, at an address that is one too (large pages of the host
  // can be the guest's). Valid until TakeMapping or the destructor, through Close.
  [[nodiscard]] std::span<uint8_t> host() const { return mapping_.bytes(); }
  [[nodiscard]] uint64_t size_bytes() const { return mapping_.size(); }
  // Of the disk; the rest is padding.
  [[nodiscard]] uint64_t disk_bytes() const { return disk_bytes_; }
  // The range can't be written to: a memory slot must be a read-only one (KVM_MEM_READONLY).
  [[nodiscard]] bool read_only() const { return read_only_; }
  [[nodiscard]] const disk::Disk& disk() const { return *disk_; }

  // Flushable. Calls that come while a flush runs share the next one. ResourceExhausted (host
  // full), Internal and others say why something isn't durable; it is tried again by the next
  // flush, unless failure().
  Task<absl::Status> Flush() override;
  Task<void> Settle() override;

  // A vCPU (KVM_RUN's EFAULT) couldn't access guest memory; if it was the window, then because a
  // mapped file was truncated, its file system is full or its medium has an error. Puts demand
  // pages where files were mapped, through which errors are reported by flushes. True when it
  // did, and the access is to be tried again; false when there is no such file. Not on the loop's
  // thread; returns when it is done.
  enum class Suspects {
    kTruncated,  // what is known to be gone
    kAll,        // every file, when nobody has a better suspect
  };
  bool OnFault(Suspects suspects);
  // A guest stored into a window that is read_only() (a write exit of its memory slot). The store
  // is lost, so flushes fail from now on. Any thread.
  void NoteRefusedStore();

  // A last flush, whose status is returned, then the end of everything but the addresses: host()
  // becomes memory of no meaning, which I/O of other devices that is still under way may read and
  // write. The caller has taken the memory slot away. Nothing may be stored meanwhile that matters.
  Task<absl::Status> Close();
  // The addresses, for who must keep them longer than the window. After Close.
  Mapping TakeMapping() { return std::move(mapping_); }

  struct State {
    uint64_t mapped_bytes = 0;     // of the file itself
    uint64_t mappings = 0;         // how many of them
    uint64_t demand_bytes = 0;     // everything else of the disk
    uint64_t populated_bytes = 0;  // demand pages that are there
    uint64_t dirty_bytes = 0;      // of those, to be written
    uint64_t fills = 0;            // reads of the disk for pages
    uint64_t tracked_stores = 0;   // faults by stores to clean pages
    uint64_t written_bytes = 0;    // written back
    uint64_t flushes = 0;          // carried out, each for one or more calls
    uint64_t failed_flushes = 0;
    std::string last_error;  // of the last flush that failed
    std::string failure;     // empty: none
  };
  [[nodiscard]] State state() const;
  // state() for inspection.
  void Inspect(inspect::Node& node) const;
  // Not OK once something is lost for good. Any thread.
  [[nodiscard]] absl::Status failure() const;

 private:
  // Where pages from an offset on, the beginning of a chunk, come from.
  struct Source {
    enum class Kind : uint8_t { kRead, kZero, kMap };
    Kind kind = Kind::kRead;
    uint64_t end = 0;  // how far that goes: the end of a chunk, or of the pages
    int fd = -1;       // kMap
    uint64_t file_offset = 0;
  };
  struct PlannedMapping {
    PageRun run;
    int fd = -1;
    uint64_t file_offset = 0;
  };
  struct PlanResult {
    std::vector<PlannedMapping> mappings;
    std::vector<PageRun> zeroes;  // of a read-only disk: never to be filled
  };

  struct alignas(kPmemPageBytes) FillBuffer {
    std::array<uint8_t, kPmemChunkBytes> bytes;
  };

  PmemWindow(IoLoop& loop, std::unique_ptr<disk::Disk> disk, PmemWindowOptions options);

  // Opening and closing: pmem_window.cc.
  Task<absl::Status> Open();
  Task<absl::StatusOr<PlanResult>> Plan();
  absl::Status Carry(const PlanResult& plan);
  absl::Status NeedDemandPages();
  Task<absl::Status> CloseParts();
  // Memory of no meaning there, whatever was mapped.
  void MapAnonymous(const PageRun& run);

  // Flushing: pmem_window_flush.cc.
  Task<absl::Status> FlushRound();
  Task<absl::Status> WriteDirty();
  Task<absl::Status> SyncDisk();
  Task<void> SettleRound();
  [[nodiscard]] absl::Status CheckPadding() const;

  // Filling: pmem_window_fill.cc.
  void Fetch(uint64_t chunk);  // fault thread
  void BeginFill();
  Task<void> AwaitFills();
  Task<absl::StatusOr<Source>> FindSource(uint64_t offset);
  Task<void> Fill(uint64_t chunk);
  Task<uint16_t> ReadChunk(uint64_t offset, std::span<uint8_t> contents);
  bool Recover(Suspects suspects);
  void WatchFile(int fd);
  bool MapOver(const PageRun& run, const Source& source, uint64_t source_offset);

  void Fail(const absl::Status& status);

  IoLoop& loop_;
  const PmemWindowOptions options_;
  std::unique_ptr<disk::Disk> disk_;
  const uint64_t disk_bytes_;
  const uint64_t paged_bytes_;  // of pages that hold any of the disk
  const bool read_only_;
  Mapping mapping_;
  std::unique_ptr<SigbusGuard> guard_;
  std::optional<FileMappings> files_;
  std::unique_ptr<FileWatch> file_watch_;  // null: the host has none to give
  std::unique_ptr<DemandPages> demand_;    // null: none are needed; never changes once there is one
  std::atomic<DemandPages*> demand_for_state_{nullptr};  // demand_, for other threads
  FlushGroup flushes_;
  bool closed_ = false;
  bool map_files_ = true;          // false after a recovery: what failed once isn't mapped again
  bool heed_holes_ = true;         // false: holes are mapped, for want of userfaultfd
  bool disk_written_ = false;      // since the disk was last flushed
  bool mapped_stored_ = false;     // files were mapped since then
  std::vector<PageRun> settling_;  // written by the flush that ended

  // Fills: at most kFillsInFlight under way, the others wait.
  std::deque<uint64_t> waiting_fills_;
  uint32_t running_fills_ = 0;
  std::vector<std::unique_ptr<FillBuffer>> fill_buffers_;
  std::atomic<uint64_t> open_fills_{0};  // asked for and not ended
  disk::WaitList fills_ended_;           // when open_fills_ becomes zero

  std::atomic<uint64_t> written_bytes_{0};
  std::atomic<uint64_t> flushes_done_{0};
  std::atomic<uint64_t> flushes_failed_{0};
  mutable std::mutex mutex_;
  std::string last_error_;  // guarded by mutex_
  absl::Status failure_;    // guarded by mutex_
};

}  // namespace bothy::virtio
