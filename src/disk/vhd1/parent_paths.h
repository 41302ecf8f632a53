// The parent locators (VHD 1.0, "Parent Locator Entry"): where a differencing image says that its
// parent is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "disk/parent.h"
#include "disk/storage.h"
#include "disk/vhd1/dynamic_header.h"
#include "disk/vhd1/vhd1.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

// Longest path that is read, in bytes of the file.
inline constexpr uint32_t kMaxLocatorBytes = 64 << 10;

// All that the header names: relative paths, then absolute ones, then the bare name. Locators that
// can't be read are left out; DataLoss when nothing remains.
Task<absl::StatusOr<ParentReference>> ReadParentReference(Storage& storage,
                                                          const DynamicHeader& header,
                                                          uint64_t header_offset);

// A locator's bytes, to be written at the entry's data_offset.
struct EncodedLocator {
  LocatorEntry entry;  // its data_offset isn't set yet
  std::vector<uint8_t> bytes;
};
// W2ru and W2ku for the paths that aren't empty.
absl::StatusOr<std::vector<EncodedLocator>> EncodeParentPaths(const ParentSpelling& parent);

// The header's "Parent Unicode Name": the absolute path where there is one.
absl::StatusOr<std::string> ParentName(const ParentSpelling& parent);

}  // namespace bothy::disk::vhd1
