#include "disk/vhd1/fixed_disk.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

std::string_view TypeName(DiskType type) {
  switch (type) {
    case DiskType::kFixed:
      return "fixed";
    case DiskType::kDynamic:
      return "dynamic";
    case DiskType::kDifferencing:
      return "differencing";
  }
  return "";
}

// Four characters of an image, which may be anything.
std::string Printable(const std::array<char, 4>& characters) {
  std::string text;
  for (const char c : characters) {
    if (std::isprint(static_cast<unsigned char>(c)) != 0) text.push_back(c);
  }
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

}  // namespace

std::vector<Fact> FooterFacts(const Image& image) {
  const Footer& footer = image.footer;
  return {{"type", std::string(TypeName(footer.type))},
          {"unique_id", footer.unique_id.ToString()},
          {"creator_application", Printable(footer.creator_application)},
          {"creator_host_os", Printable(footer.creator_host_os)},
          {"created_seconds_since_2000", uint64_t{footer.time_stamp}},
          {"cylinders", uint64_t{footer.geometry.cylinders}},
          {"heads", uint64_t{footer.geometry.heads}},
          {"sectors_per_track", uint64_t{footer.geometry.sectors_per_track}}};
}

Geometry MakeGeometry(const Storage& storage, const Image& image, bool read_only) {
  return {
      .size_bytes = image.disk_bytes(),
      .logical_sector_bytes = static_cast<uint32_t>(kSectorBytes),
      .physical_sector_bytes = std::max<uint32_t>(storage.physical_block_bytes(), kSectorBytes),
      .discard_granularity_bytes = std::max<uint32_t>(storage.physical_block_bytes(), kSectorBytes),
      .read_only = read_only || storage.read_only()};
}

FixedDisk::FixedDisk(std::unique_ptr<Storage> storage, const Image& image, bool read_only)
    : storage_(std::move(storage)),
      file_(*storage_),
      image_(image),
      geometry_(MakeGeometry(*storage_, image, read_only)) {}

void FixedDisk::Submit(Request& request) {
  absl::Status status = CheckRequest(geometry_, request);
  if (!status.ok()) return request.Complete(std::move(status));
  // Same offsets, same meaning: the storage has the disk's bytes first.
  if (request.operation == Operation::kFlush) return file_.SubmitUserFlush(request);
  file_.Submit(request);
}

Task<absl::StatusOr<Extent>> FixedDisk::MapExtent(uint64_t offset) {
  if (offset >= geometry_.size_bytes) {
    co_return absl::InvalidArgumentError(absl::StrCat("offset ", offset, ": past the disk's end"));
  }
  Extent extent;
  extent.length = geometry_.size_bytes - offset;
  extent.fd = storage_->fd();
  if (extent.fd >= 0) {
    extent.kind = Extent::Kind::kFile;
    extent.file_offset = offset;
    extent.writable = !geometry_.read_only;
  }
  co_return extent;
}

Task<absl::Status> FixedDisk::Close() {
  if (geometry_.read_only) co_return absl::OkStatus();
  absl::Status status = co_await Flush(file_);
  co_return file_.AnswerFlush(std::move(status));
}

std::vector<Fact> FixedDisk::Facts() const { return FooterFacts(image_); }

}  // namespace bothy::disk::vhd1
