#include "machine/disk_image.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "disk/open_image.h"
#include "inspect/node.h"

namespace bothy::machine {
namespace {

disk::ImageType ToDisk(ImageType type) {
  switch (type) {
    case ImageType::kVhd1:
      return disk::ImageType::kVhd1;
    case ImageType::kVhdx:
      return disk::ImageType::kVhdx;
    case ImageType::kPhysical:
      return disk::ImageType::kRaw;
  }
  return disk::ImageType::kRaw;
}

uint64_t Fnv1a(std::string_view text, uint64_t hash) {
  for (const char c : text) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100'0000'01B3;
  }
  return hash;
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> OpenDisk(IoLoop& loop, ImageConfig image) {
  disk::OpenImageOptions options;
  options.read_only = image.read_only;
  absl::StatusOr<std::unique_ptr<disk::Disk>> disk =
      co_await disk::OpenImage(loop, std::move(image.path), ToDisk(image.type), options);
  co_return disk;
}

std::string SerialOf(const disk::Disk& disk) {
  const std::optional<Guid> identity = disk.identity();
  if (!identity.has_value()) return SerialOfPath(disk.path());
  std::string text = identity->ToString();
  std::erase(text, '-');
  return text;
}

std::string SerialOfPath(std::string_view path) {
  const uint64_t first = Fnv1a(path, 0xCBF2'9CE4'8422'2325);
  return absl::StrFormat("%016x%016x", first, Fnv1a(path, first));
}

void Describe(const disk::Disk& disk, inspect::Node& node) {
  node.Value("path", disk.path());
  node.Value("format", disk.format());
  const disk::Geometry& geometry = disk.geometry();
  node.Value("size_bytes", geometry.size_bytes);
  node.Value("logical_sector_bytes", geometry.logical_sector_bytes);
  node.Value("physical_sector_bytes", geometry.physical_sector_bytes);
  node.Value("read_only", geometry.read_only);
  for (const disk::Fact& fact : disk.Facts()) {
    std::visit([&](const auto& value) { node.Value(fact.name, value); }, fact.value);
  }
  if (const disk::Disk* parent = disk.parent(); parent != nullptr) {
    node.Child("parent", [parent](inspect::Node& below) { Describe(*parent, below); });
  }
}

}  // namespace bothy::machine
