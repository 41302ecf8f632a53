// VhdxDisk: the Disk over one image file. vhdx.h opens it; docs/vhdx.md tells the order in which
// things become durable.
//
// A request whose tables are in memory goes to the storage, or to the parent, within Submit: no
// coroutine, nothing allocated. Everything else is cut at block boundaries into pieces that run
// concurrently, each a coroutine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/flush_tracking_storage.h"
#include "disk/vhdx/bat.h"
#include "disk/vhdx/gather.h"
#include "disk/vhdx/image_file.h"
#include "disk/vhdx/io_epochs.h"
#include "disk/vhdx/keyed_lock.h"
#include "disk/vhdx/metadata_store.h"
#include "disk/vhdx/space_allocator.h"
#include "disk/vhdx/vhdx.h"
#include "disk/wait_list.h"

namespace bothy::disk::vhdx {

class VhdxDisk final : public Disk {
 public:
  static Task<absl::StatusOr<std::unique_ptr<Disk>>> Open(std::unique_ptr<Storage> storage,
                                                          OpenOptions options);
  ~VhdxDisk() override;

  void Submit(Request& request) override;
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) override;
  Task<MappedSync> SyncMapped() override { return SyncMappedOf(*this, *file_); }
  Task<absl::StatusOr<Presence>> FindPresence(uint64_t offset) override;
  Task<void> Settle() override;
  Task<absl::Status> Close() override;
  [[nodiscard]] std::string_view format() const override { return "vhdx"; }
  [[nodiscard]] const std::string& path() const override { return file_->path(); }
  [[nodiscard]] std::vector<Fact> Facts() const override;
  [[nodiscard]] const Disk* parent() const override { return parent_.get(); }
  [[nodiscard]] std::optional<Guid> identity() const override {
    return image_->parameters().disk_id;
  }
  [[nodiscard]] std::optional<Guid> linkage() const override {
    return image_->headers().current().data_write_guid;
  }

 private:
  // A request of the disk's own, to the storage, that stands for one of its user's.
  class Forwarded;
  // What a piece does with the part of the user's request that it covers.
  struct Piece {
    const Request* request;
    uint64_t offset;  // of the disk
    uint64_t length;
  };

  VhdxDisk(std::unique_ptr<Storage> storage, std::unique_ptr<FlushTrackingStorage> file,
           std::unique_ptr<ImageFile> image, OpenOptions options);
  Task<absl::Status> OpenParent();
  absl::Status CheckParent(const Disk& parent) const;

  // Within Submit: true when the request was passed on or completed.
  bool TryRead(Request& request);
  bool TryReadParent(Request& request);
  // Where all of the request's bytes are, in a partially present block.
  enum class Run : uint8_t { kHere, kParent, kUnknown };
  Run FindPartialRun(const Request& request, BatEntry entry);
  bool TryWrite(Request& request);
  bool TryFlush(Request& request);
  void Forward(Request& request, uint64_t file_offset);
  // The entry of a new block that reads as zero where nothing was written, or nothing when that
  // takes waiting.
  std::optional<BatEntry> TryAllocate(MetadataStore::Page& page, uint32_t slot);

  // Everything else.
  Task<absl::Status> Serve(const Request& request);
  Task<absl::Status> ServeFlush();
  Task<absl::Status> ServePieces(const Request& request);
  Task<absl::Status> ServePiece(Piece piece);
  Task<absl::Status> ReadPiece(Piece piece);
  absl::Status ReadRuns(const Piece& piece, BatEntry entry, const MetadataStore::Page& bitmap,
                        Gather& reads);
  void ReadParent(const Piece& piece, Gather& reads);
  // Data or zeros, according to the request's operation.
  Task<absl::Status> WritePiece(Piece piece);
  void PassOn(const Piece& piece, uint64_t block_offset, Gather& io);
  // The entry of the piece's block, made present.
  Task<absl::StatusOr<BatEntry>> PrepareBlock(uint64_t block);
  Task<absl::Status> AllocateFull(uint64_t block);
  Task<absl::Status> AllocatePartial(uint64_t block);
  Task<absl::Status> AllocateBitmap(uint64_t chunk);
  Task<absl::Status> ClearBits(uint64_t block);
  // Gives the block of a BAT entry, which is in `page`, room and that state, unless it has become
  // another one than needs it meanwhile.
  Task<absl::Status> PlaceBlock(uint64_t index, MetadataStore::Page& page, BlockState state);
  Task<absl::Status> WritePartial(Piece piece, BatEntry entry);
  void SetBits(const Piece& piece, MetadataStore::Page& bitmap);
  void MakeFullIfComplete(uint64_t block, BatEntry entry, MetadataStore::Page& bat_page);
  // Pages that a write into a partially present block may change.
  [[nodiscard]] uint32_t PagesOfPartialWrite() const;
  // Discarding and writing zeros: block by block, quickly where there is nothing to do.
  Task<absl::Status> ServeZeroing(const Request& request);
  Task<absl::Status> ZeroBlock(Piece piece);
  Task<absl::Status> ZeroPart(Piece piece);
  enum class Zeroing : uint8_t { kNothing, kFree, kPart };
  [[nodiscard]] Zeroing HowToZero(const Piece& piece, BatEntry entry) const;
  Task<absl::Status> Free(uint64_t block, BlockState state);

  // Before the first change of the session: FileWriteGuid, DataWriteGuid ([MS-VHDX] 2.2.2.1).
  Task<absl::Status> BeginChanges();

  [[nodiscard]] uint64_t BlockOf(uint64_t offset) const { return offset >> block_shift_; }
  [[nodiscard]] uint64_t WithinBlock(uint64_t offset) const { return offset & (block_bytes_ - 1); }
  // Where the part of the piece's block that is on the disk ends.
  [[nodiscard]] uint64_t BlockEnd(uint64_t offset) const;
  [[nodiscard]] const BatLayout& bat() const { return image_->bat(); }
  Task<absl::StatusOr<MetadataStore::PageRef>> LoadBatPage(uint64_t index);
  // Those of a block's entry and, for a differencing image, of its chunk's sector bitmap.
  struct Entries {
    MetadataStore::PageRef page;
    MetadataStore::PageRef bitmap_entry_page;
    uint32_t slot = 0;
    uint32_t bitmap_slot = 0;
    [[nodiscard]] BatEntry entry() const { return BatEntry(page->Load64(slot)); }
    [[nodiscard]] BatEntry bitmap_entry() const {
      return BatEntry(bitmap_entry_page->Load64(bitmap_slot));
    }
  };
  // In memory, and checked as they are now; what they say may change at each co_await.
  Task<absl::StatusOr<Entries>> LoadEntries(uint64_t block);
  // The end of the blocks from that of `offset` on whose entries are the same as its own, as far as
  // that is known without another page.
  [[nodiscard]] uint64_t EndOfAlike(const Entries& entries, uint64_t offset) const;
  // The page with the bits from `offset` on.
  Task<absl::StatusOr<MetadataStore::PageRef>> LoadBitmap(const Entries& entries, uint64_t offset);
  // The page of a present sector bitmap block with the bit of `offset`.
  [[nodiscard]] absl::StatusOr<uint64_t> BitmapPageOffset(uint64_t offset,
                                                          BatEntry bitmap_entry) const;
  [[nodiscard]] uint32_t BitOf(uint64_t offset) const;
  // The first offset of the disk that has its bit in another page.
  [[nodiscard]] uint64_t BitmapPageEnd(uint64_t offset) const;
  // DataLoss unless a block's entry can be one: state, reserved bits, place.
  [[nodiscard]] bool IsSound(BatEntry entry) const;
  [[nodiscard]] absl::Status CheckEntry(uint64_t index, BatEntry entry) const;
  [[nodiscard]] absl::Status CheckBitmapEntry(uint64_t index, BatEntry entry) const;
  // A fixed image, whose blocks stay where they are.
  [[nodiscard]] bool keeps_space() const {
    return image_->parameters().leave_block_allocated && !has_parent();
  }
  [[nodiscard]] bool has_parent() const { return image_->parameters().has_parent; }

  const std::unique_ptr<Storage> owned_storage_;
  const std::unique_ptr<FlushTrackingStorage> file_;  // over it
  const std::unique_ptr<ImageFile> image_;
  Storage& storage_;  // the file, or what is laid over it
  OpenOptions options_;
  Geometry geometry_;
  std::unique_ptr<Disk> parent_;
  uint64_t parent_bytes_ = 0;
  const uint64_t block_bytes_;
  const uint32_t block_shift_;
  const uint32_t sector_shift_;

  MetadataStore tables_;
  IoEpochs epochs_;
  SpaceAllocator space_;
  KeyedLock allocating_;  // by index of the BAT

  bool changes_begun_ = false;
  bool beginning_ = false;
  WaitList begun_;

  std::vector<std::unique_ptr<Forwarded>> forwarded_;  // all there are
  std::vector<Forwarded*> idle_forwarded_;
};

class VhdxDisk::Forwarded final : public Request {
 public:
  explicit Forwarded(VhdxDisk& disk) : disk_(disk) {}
  // Takes over what to do from `of`; the offset is still to be set.
  void Begin(Request& of);
  void Complete(absl::Status status) override;

 private:
  VhdxDisk& disk_;
  Request* of_ = nullptr;
  uint64_t epoch_ = 0;
  MetadataStore::FlushTicket ticket_;
};

}  // namespace bothy::disk::vhdx
