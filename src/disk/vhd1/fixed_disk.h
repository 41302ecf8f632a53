// A fixed image: the disk's bytes as they are, and a footer behind them that nobody touches.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/flush_tracking_storage.h"
#include "disk/storage.h"
#include "disk/vhd1/image.h"

namespace bothy::disk::vhd1 {

class FixedDisk final : public Disk {
 public:
  FixedDisk(std::unique_ptr<Storage> storage, const Image& image, bool read_only);

  void Submit(Request& request) override;
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  Task<absl::StatusOr<Extent>> MapExtent(uint64_t offset) override;
  Task<absl::Status> Close() override;
  [[nodiscard]] std::string_view format() const override { return "vhd1"; }
  [[nodiscard]] const std::string& path() const override { return storage_->path(); }
  [[nodiscard]] std::vector<Fact> Facts() const override;
  [[nodiscard]] std::optional<Guid> identity() const override { return image_.footer.unique_id; }
  [[nodiscard]] std::optional<Guid> linkage() const override { return image_.footer.unique_id; }

 private:
  const std::unique_ptr<Storage> storage_;
  FlushTrackingStorage file_;  // over it
  const Image image_;
  Geometry geometry_;
};

// What all three types tell of themselves.
std::vector<Fact> FooterFacts(const Image& image);
Geometry MakeGeometry(const Storage& storage, const Image& image, bool read_only);

}  // namespace bothy::disk::vhd1
