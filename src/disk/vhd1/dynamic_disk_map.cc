// Where a dynamic image's bytes are, for mapping, copying and inspection.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/vhd1/dynamic_disk.h"
#include "disk/vhd1/fixed_disk.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

absl::Status PastTheEnd(uint64_t offset) {
  return absl::InvalidArgumentError(absl::StrCat("offset ", offset, ": past the disk's end"));
}

}  // namespace

Task<absl::StatusOr<DynamicDisk::Located>> DynamicDisk::Locate(uint64_t offset) {
  Located located;
  located.piece.block = static_cast<uint32_t>(offset / block_bytes_);
  located.piece.within = offset % block_bytes_;
  located.piece.length =
      std::min(block_bytes_ - located.piece.within, geometry_.size_bytes - offset);
  absl::StatusOr<Placement> placed = co_await Place(located.piece.block);
  CO_ASSIGN_OR_RETURN(located.placement, placed);
  located.present = located.placement.present();
  if (located.present && !located.placement.complete) {
    const std::vector<Run> runs = RunsOf(located.piece);
    located.piece.length = runs.front().length;
    located.present = runs.front().present;
  }
  co_return located;
}

Task<absl::StatusOr<Extent>> DynamicDisk::MapExtent(uint64_t offset) {
  if (offset >= geometry_.size_bytes) co_return PastTheEnd(offset);
  absl::StatusOr<Located> found = co_await Locate(offset);
  CO_ASSIGN_OR_RETURN(const Located located, found);
  Extent extent;
  extent.length = located.piece.length;
  if (located.present) {
    if (storage_.fd() < 0) co_return extent;
    extent.kind = Extent::Kind::kFile;
    extent.fd = storage_.fd();
    extent.file_offset = DataOffset(located.placement.location, located.piece.within);
    extent.writable = !geometry_.read_only;
    co_return extent;
  }
  extent.kind = Extent::Kind::kZero;
  if (parent_ == nullptr || offset >= parent_->geometry().size_bytes) co_return extent;
  absl::StatusOr<Extent> inherited = co_await parent_->MapExtent(offset);
  if (!inherited.ok()) co_return inherited;
  inherited->length = std::min(inherited->length, extent.length);
  inherited->writable = false;
  co_return inherited;
}

Task<absl::StatusOr<Presence>> DynamicDisk::FindPresence(uint64_t offset) {
  if (offset >= geometry_.size_bytes) co_return PastTheEnd(offset);
  absl::StatusOr<Located> found = co_await Locate(offset);
  CO_ASSIGN_OR_RETURN(const Located located, found);
  Presence presence;
  presence.length = located.piece.length;
  if (located.present) {
    presence.kind = Presence::Kind::kHere;
  } else {
    presence.kind = parent_ == nullptr ? Presence::Kind::kZero : Presence::Kind::kParent;
  }
  co_return presence;
}

std::vector<Fact> DynamicDisk::Facts() const {
  std::vector<Fact> facts = FooterFacts(image_);
  facts.push_back({"block_size_bytes", uint64_t{image_.header->block_size}});
  facts.push_back({"blocks", uint64_t{image_.blocks()}});
  if (image_.footer.type == DiskType::kDifferencing) {
    facts.push_back({"parent_paths", parent_spellings_});
    facts.push_back({"parent_unique_id", image_.header->parent_unique_id.ToString()});
  }
  return facts;
}

}  // namespace bothy::disk::vhd1
