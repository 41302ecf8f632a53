#include "disk/vhdx/space_map.h"

#include <algorithm>

#include "support/check.h"

namespace bothy::disk::vhdx {

bool SpaceMap::IsClaimed(uint64_t unit) const {
  const auto part = parts_.find(unit / kUnitsOfAPart);
  return part != parts_.end() &&
         ((*part->second)[unit % kUnitsOfAPart / 64] >> (unit % 64) & 1) != 0;
}

bool SpaceMap::Claim(uint64_t offset, uint64_t length) {
  CHECK(offset % kMiB == 0 && length % kMiB == 0 && offset + length <= 2 * kMaxFileBytes);
  const uint64_t first = offset / kMiB;
  const uint64_t last = first + length / kMiB;
  for (uint64_t unit = first; unit < last; ++unit) {
    if (IsClaimed(unit)) return false;
  }
  for (uint64_t unit = first; unit < last; ++unit) {
    std::unique_ptr<Part>& part = parts_[unit / kUnitsOfAPart];
    if (part == nullptr) part = std::make_unique<Part>();
    (*part)[unit % kUnitsOfAPart / 64] |= uint64_t{1} << (unit % 64);
  }
  claimed_units_ += last - first;
  end_ = std::max(end_, offset + length);
  return true;
}

SpaceMap::Run SpaceMap::FindFree(uint64_t offset, uint64_t end) const {
  uint64_t unit = offset / kMiB;
  const uint64_t last = end / kMiB;
  while (unit < last && IsClaimed(unit)) ++unit;
  Run run = {.offset = unit * kMiB, .length = 0};
  while (unit < last) {
    const auto part = parts_.lower_bound(unit / kUnitsOfAPart);
    if (part == parts_.end()) {
      unit = last;
    } else if (part->first > unit / kUnitsOfAPart) {
      unit = std::min(last, part->first * kUnitsOfAPart);
    } else if (IsClaimed(unit)) {
      break;
    } else {
      ++unit;
    }
  }
  run.length = unit * kMiB - run.offset;
  return run;
}

}  // namespace bothy::disk::vhdx
