#include "machine/disk_image.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/open_image.h"
#include "inspect/node.h"
#include "support/trace.h"

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

template <typename T>
void ShowFact(const std::string& name, const T& value, inspect::Node& node) {
  node.Value(name, value);
}
// A directory of "0", "1", …
void ShowFact(const std::string& name, const std::vector<std::string>& values,
              inspect::Node& node) {
  node.Child(name, [&values](inspect::Node& list) {
    for (size_t i = 0; i < values.size(); ++i) list.Value(absl::StrCat(i), values[i]);
  });
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> OpenDisk(IoLoop& loop, ImageConfig image) {
  disk::OpenImageOptions options;
  options.read_only = image.read_only;
  TraceOperation trace("disk", "open image", image.path);
  absl::StatusOr<std::unique_ptr<disk::Disk>> disk =
      co_await disk::OpenImage(loop, std::move(image.path), ToDisk(image.type), options);
  trace.End(disk.status().ok() ? "" : std::string(disk.status().message()));
  co_return disk;
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
    std::visit([&](const auto& value) { ShowFact(fact.name, value, node); }, fact.value);
  }
  if (const disk::Disk* parent = disk.parent(); parent != nullptr) {
    node.Child("parent", [parent](inspect::Node& below) { Describe(*parent, below); });
  }
}

}  // namespace bothy::machine
