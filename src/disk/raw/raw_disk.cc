#include "disk/raw/raw_disk.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/flush_tracking_storage.h"

namespace bothy::disk {
namespace {

class RawDisk final : public Disk {
 public:
  RawDisk(std::unique_ptr<Storage> storage, const Geometry& geometry)
      : storage_(std::move(storage)), file_(*storage_), geometry_(geometry) {}

  // The storage does all of it: nothing is allocated, and only flushes wait, for each other.
  void Submit(Request& request) override {
    if (absl::Status status = CheckRequest(geometry_, request); !status.ok()) {
      return request.Complete(std::move(status));
    }
    if (request.operation == Operation::kFlush) return file_.SubmitUserFlush(request);
    file_.Submit(request);
  }
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }

  Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) override {
    if (offset >= geometry_.size_bytes) {
      co_return absl::InvalidArgumentError(absl::StrCat("offset ", offset, ": past the end"));
    }
    Extent extent;
    extent.length = geometry_.size_bytes - offset;
    if (storage_->fd() >= 0) {
      extent.kind = Extent::Kind::kFile;
      extent.fd = storage_->fd();
      extent.file_offset = offset;
      extent.writable = !geometry_.read_only;
    }
    co_return extent;
  }

  static absl::StatusOr<Geometry> GeometryOf(const Storage& storage) {
    Geometry geometry;
    geometry.size_bytes = storage.size();
    geometry.logical_sector_bytes = storage.logical_block_bytes();
    geometry.physical_sector_bytes = storage.physical_block_bytes();
    geometry.discard_granularity_bytes = storage.physical_block_bytes();
    geometry.read_only = storage.read_only();
    const uint32_t sector = geometry.logical_sector_bytes;
    if (geometry.size_bytes % sector != 0 || geometry.size_bytes == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(storage.path(), ": ", geometry.size_bytes,
                       " bytes are no disk of whole sectors of ", sector, " bytes; grow it to ",
                       (geometry.size_bytes / sector + 1) * sector, " with truncate -s"));
    }
    return geometry;
  }

  absl::Status Refresh() override {
    RETURN_IF_ERROR(storage_->Refresh());
    ASSIGN_OR_RETURN(geometry_, GeometryOf(*storage_));
    return absl::OkStatus();
  }
  Task<absl::Status> Close() override {
    absl::Status status = co_await Flush(file_);
    co_return file_.AnswerFlush(std::move(status));
  }
  [[nodiscard]] std::string_view format() const override { return "raw"; }
  [[nodiscard]] const std::string& path() const override { return storage_->path(); }
  [[nodiscard]] std::vector<Fact> Facts() const override { return {}; }

 private:
  const std::unique_ptr<Storage> storage_;
  FlushTrackingStorage file_;  // over it
  Geometry geometry_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Disk>> OpenRawDisk(std::unique_ptr<Storage> storage) {
  ASSIGN_OR_RETURN(const Geometry geometry, RawDisk::GeometryOf(*storage));
  return std::make_unique<RawDisk>(std::move(storage), geometry);
}

}  // namespace bothy::disk
