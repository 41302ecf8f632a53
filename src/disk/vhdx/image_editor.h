// ImageEditor: changes the tables of an image that nobody uses as a disk: Repair, Resize,
// SetParentLinkage.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "disk/flush_tracking_storage.h"
#include "disk/vhdx/bat_examiner.h"
#include "disk/vhdx/image_file.h"
#include "disk/vhdx/metadata_store.h"
#include "disk/vhdx/region_table.h"

namespace bothy::disk::vhdx {

class ImageEditor {
 public:
  // Replays the log. `storage` outlives the editor.
  static Task<absl::StatusOr<std::unique_ptr<ImageEditor>>> Open(Storage& storage);

  [[nodiscard]] Storage& storage() { return *storage_; }
  [[nodiscard]] ImageFile& image() { return *image_; }
  [[nodiscard]] MetadataStore& tables() { return tables_; }

  // Before the first change. `contents`: it shows in what the disk holds, so that children of the
  // image shall notice ([MS-VHDX] 2.2.2, DataWriteGuid): it becomes `next_linkage`, or a fresh one
  // when that is zero.
  enum class Changes : uint8_t { kLayout, kContents };
  Task<absl::Status> Begin(Changes changes, Guid next_linkage = Guid());
  // Changes bytes of a table in memory. Those of several calls become durable together when they
  // take few pages and a Commit follows.
  Task<absl::Status> Write(uint64_t offset, std::span<const uint8_t> bytes);
  // Both copies of the region table.
  Task<absl::Status> WriteRegions(const RegionTable& regions);
  // Everything in its place, and the log empty. Fails when any flush did since the opening: what
  // it had covered can't be told from what is good.
  Task<absl::Status> Finish();

  // The entry at `index`, and its change. FindEntry has it only when its page is in memory: for
  // loops over the BAT, which then don't await something for every entry.
  Task<absl::StatusOr<BatEntry>> Entry(uint64_t index);
  [[nodiscard]] std::optional<BatEntry> FindEntry(uint64_t index);
  Task<absl::Status> SetEntry(uint64_t index, BatEntry entry);

  // After Finish: gives back what `space` says nobody has: holes, and the end of the file.
  Task<absl::Status> GiveBack(const SpaceMap& space);

 private:
  ImageEditor(std::unique_ptr<FlushTrackingStorage> storage, std::unique_ptr<ImageFile> image);

  const std::unique_ptr<FlushTrackingStorage> storage_;
  std::unique_ptr<ImageFile> image_;
  MetadataStore tables_;
};

}  // namespace bothy::disk::vhdx
