// ImageFile: an image's file with its structure known: headers, regions, metadata, and the log
// replayed. What Open, Check, Repair and Resize begin with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "disk/storage.h"
#include "disk/vhdx/bat.h"
#include "disk/vhdx/header_store.h"
#include "disk/vhdx/metadata.h"
#include "disk/vhdx/overlay_storage.h"
#include "disk/vhdx/parent_locator.h"
#include "disk/vhdx/region_table.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

class ImageFile {
 public:
  enum class Mode : uint8_t {
    kReadOnly,  // changes nothing: a log is replayed into memory
    kWritable,  // replays a log into the file, which then is a clean one
  };
  // Nothing of a clean file is changed. `storage` outlives the ImageFile.
  static Task<absl::StatusOr<std::unique_ptr<ImageFile>>> Open(Storage& storage, Mode mode);

  // What to read the image from: the file, or the overlay.
  [[nodiscard]] Storage& storage() { return overlay_ == nullptr ? file_ : *overlay_; }
  [[nodiscard]] HeaderStore& headers() { return headers_; }
  [[nodiscard]] const HeaderStore& headers() const { return headers_; }
  [[nodiscard]] const RegionTable& regions() const { return regions_; }
  // OK when both copies of the region table say the same.
  [[nodiscard]] const absl::Status& region_copy_status() const { return region_copy_status_; }
  [[nodiscard]] const MetadataTable& metadata() const { return metadata_; }
  [[nodiscard]] const DiskParameters& parameters() const { return parameters_; }
  [[nodiscard]] const BatLayout& bat() const { return bat_; }
  // Of a differencing image.
  [[nodiscard]] const ParentLocator& locator() const { return locator_; }
  // Whether there was a log to replay.
  [[nodiscard]] bool log_replayed() const { return log_replayed_; }

  // Whether `length` bytes at `offset` are apart from header section, log and regions, as a block
  // must be.
  [[nodiscard]] bool IsBlockSpace(uint64_t offset, uint64_t length) const;
  // Where log and regions, wherever they lie, end.
  [[nodiscard]] uint64_t structures_end() const { return structures_end_; }
  struct Extent {
    uint64_t offset;
    uint64_t end;
  };
  // Header section, log and regions, by offset.
  [[nodiscard]] const std::vector<Extent>& structures() const { return structures_; }

 private:
  ImageFile(Storage& file, HeaderStore headers) : file_(file), headers_(std::move(headers)) {}
  Task<absl::Status> RecoverLog(Mode mode);
  Task<absl::Status> ReadRegions();
  Task<absl::Status> ReadMetadata();
  absl::Status CollectStructures();

  Storage& file_;
  HeaderStore headers_;
  std::unique_ptr<OverlayStorage> overlay_;
  bool log_replayed_ = false;
  RegionTable regions_;
  absl::Status region_copy_status_;
  MetadataTable metadata_;
  DiskParameters parameters_;
  BatLayout bat_;
  ParentLocator locator_;
  std::vector<Extent> structures_;
  uint64_t structures_end_ = 0;
};

}  // namespace bothy::disk::vhdx
