// A dynamic or differencing image: blocks that get room in the file when they are first written.
//
// What survives a crash. The format has no log, only pointers (the table) and, before each block, a
// bitmap that says which sectors are present. Both change in memory first. A commit, which is what
// a flush is, makes them durable in this order:
//
//   1. bitmaps of blocks that the file's table doesn't point to yet; then a flush, with which all
//      data written so far is durable too;
//   2. bitmaps of the other blocks, and the sectors of the table; then a flush.
//
// So at any moment a table entry in the file points to a block that is there, and a set bit of a
// bitmap to a sector that is there: a crash takes back what no flush has covered and nothing else.
// Two things are relied on: the host writes a sector of 512 bytes whole or not at all, and what was
// flushed stays. A crash can leave room behind the last block, which the next session uses again.
//
// Blocks are made of zeros, so in an image without a parent a new one has all its bits set and
// costs its data's write alone. Data begins on pages of the file, for mapping and for a host that
// writes pages.
//
// A commit begins by itself when many entries wait for one. All that waits together shares it. When
// a flush of the file fails that the guest didn't ask for, the guest's next flush fails with the
// same error, and so do those under way (disk/flush_tracking_storage.h); Close counts as one.
#pragma once

#include <coroutine>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/flush_tracking_storage.h"
#include "disk/storage.h"
#include "disk/vhd1/bitmap_cache.h"
#include "disk/vhd1/block_table.h"
#include "disk/vhd1/fan_out.h"
#include "disk/vhd1/file_space.h"
#include "disk/vhd1/image.h"
#include "disk/vhd1/in_flight.h"
#include "disk/wait_list.h"

namespace bothy::disk::vhd1 {

class DynamicDisk final : public Disk {
 public:
  // `parent` is null for a dynamic image.
  DynamicDisk(std::unique_ptr<Storage> storage, const Image& image, std::unique_ptr<Disk> parent,
              std::vector<std::string> parent_spellings, bool read_only, uint32_t cache_bytes);
  ~DynamicDisk() override;

  void Submit(Request& request) override;
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) override;
  Task<MappedSync> SyncMapped() override { return SyncMappedOf(*this, storage_); }
  Task<absl::StatusOr<Presence>> FindPresence(uint64_t offset) override;
  Task<void> Settle() override;
  Task<absl::Status> Close() override;
  [[nodiscard]] std::string_view format() const override { return "vhd1"; }
  [[nodiscard]] const std::string& path() const override { return storage_.path(); }
  [[nodiscard]] std::vector<Fact> Facts() const override;
  [[nodiscard]] const Disk* parent() const override { return parent_.get(); }
  [[nodiscard]] std::optional<Guid> identity() const override { return image_.footer.unique_id; }
  [[nodiscard]] std::optional<Guid> linkage() const override { return image_.footer.unique_id; }

 private:
  // A request that is one request of the storage.
  struct Forwarded final : Request {
    explicit Forwarded(DynamicDisk& owner) : disk(owner) {}
    void Complete(absl::Status status) override;
    DynamicDisk& disk;
    Request* original = nullptr;
    InFlightList::Entry in_flight;
  };
  // The part of a request that lies in one block.
  struct Piece {
    uint32_t block = 0;
    uint64_t within = 0;     // bytes into the block
    uint64_t length = 0;     // bytes
    uint64_t requested = 0;  // bytes into the request
    bool whole = false;      // all of the block that the disk has
  };
  // Where a block is: `location` as in BlockTable; its bitmap is in the cache unless complete.
  struct Placement {
    uint32_t location = BlockTable::kUnused;
    bool complete = false;
    [[nodiscard]] bool present() const { return location != BlockTable::kUnused; }
  };
  // Sectors of which the bitmap shall say that they are present.
  struct Mark {
    Piece piece;
    uint32_t location = 0;
  };
  // A run of sectors that are all present or all absent.
  struct Run {
    uint64_t within = 0;
    uint64_t length = 0;
    bool present = false;
  };

  // The run of present or absent sectors that begins at an offset of the disk; its piece ends with
  // the run.
  struct Located {
    Piece piece;
    Placement placement;
    bool present = false;
  };

  bool Forward(Request& request);
  Task<absl::Status> Perform(Request& request);
  Task<absl::Status> Read(Request& request);
  Task<absl::Status> Write(Request& request);
  Task<absl::Status> DiscardOrZero(Request& request);

  [[nodiscard]] Piece PieceAt(const Request& request, uint64_t done) const;
  [[nodiscard]] uint64_t DataOffset(uint32_t location, uint64_t within) const {
    return location * uint64_t{512} + bitmap_bytes_ + within;
  }
  Task<absl::StatusOr<Placement>> Place(uint32_t block);
  // The same, and a block is made when there is none.
  Task<absl::StatusOr<Placement>> PlaceForWriting(uint32_t block);
  Task<absl::StatusOr<Located>> Locate(uint64_t offset);
  absl::Status CheckLocation(uint32_t block, uint32_t location) const;
  Task<absl::Status> LoadBitmap(uint32_t block, uint32_t location);
  [[nodiscard]] std::vector<Run> RunsOf(const Piece& piece);
  void ReadAbsent(FanOut& parts, std::span<const iovec> buffers, uint64_t offset,
                  uint64_t requested, uint64_t length);
  Task<absl::Status> MarkPresent(std::vector<Mark>& marks);
  void FreeBlock(uint32_t block);

  // What a flush of the guest is.
  Task<absl::Status> CommitForGuest();
  // Everything that completed before is durable afterwards.
  Task<absl::Status> Commit();
  Task<absl::Status> RunCommit();
  // What the parts of a commit are, written in the order that a crash leaves good.
  Task<absl::Status> WriteCommit(const std::vector<BlockTable::Change>& changes,
                                 const std::vector<BitmapCache::Change>& bitmaps);
  // Begins a commit, or waits for one, before too much waits for it.
  Task<absl::Status> LimitUncommitted();

  const std::unique_ptr<Storage> owned_storage_;
  FlushTrackingStorage storage_;  // over it
  const Image image_;
  const std::unique_ptr<Disk> parent_;
  const std::vector<std::string> parent_spellings_;
  const Geometry geometry_;
  const uint64_t block_bytes_;
  const uint64_t bitmap_bytes_;
  BlockTable table_;
  BitmapCache bitmaps_;
  InFlightList in_flight_;
  FileSpace space_;

  // Commits are numbered from 1.
  bool committing_ = false;
  uint64_t commits_begun_ = 0;
  uint64_t commits_ended_ = 0;
  absl::Status commit_status_;  // of the last one that ended
  bool commit_failed_ = false;
  WaitList commit_ended_;

  std::vector<std::unique_ptr<Forwarded>> forwarded_;
  std::vector<Forwarded*> unused_forwarded_;
};

}  // namespace bothy::disk::vhd1
