// The parent locator ([MS-VHDX] 2.6.2.6): how a differencing image finds and knows its parent.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "disk/parent.h"
#include "disk/vhdx/vhdx.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhdx {

// Keys of 2.6.2.6.3.
inline constexpr std::string_view kParentLinkage = "parent_linkage";
inline constexpr std::string_view kParentLinkage2 = "parent_linkage2";
inline constexpr std::string_view kRelativePath = "relative_path";
inline constexpr std::string_view kVolumePath = "volume_path";
inline constexpr std::string_view kAbsoluteWin32Path = "absolute_win32_path";

struct ParentLocator {
  std::vector<std::pair<std::string, std::string>> entries;  // key, value; UTF-8

  // The value of `key`, or null.
  [[nodiscard]] const std::string* Find(std::string_view key) const;
  // Adds or replaces; an empty value removes.
  void Set(std::string_view key, std::string_view value);
  // The GUIDs of parent_linkage and, where it is there, parent_linkage2.
  [[nodiscard]] absl::StatusOr<std::vector<Guid>> Linkages() const;
  // Where to look, in the order of the specification: relative, volume, absolute path.
  [[nodiscard]] ParentReference Reference(const std::string& child_path) const;
};

// The item's bytes, which lie at `offset` of the file. DataLoss for what breaks the format,
// InvalidArgument for a locator of another type.
absl::StatusOr<ParentLocator> ParseParentLocator(std::span<const uint8_t> bytes, uint64_t offset);
// InvalidArgument for strings that aren't UTF-8 or too long for the format.
absl::StatusOr<std::vector<uint8_t>> BuildParentLocator(const ParentLocator& locator);

// "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"
[[nodiscard]] std::string SpellLinkage(const Guid& linkage);
// A POSIX path as the format spells it: "..\base.vhdx", "\\?\images\base.vhdx". InvalidArgument for
// a relative path where `absolute` is wanted and the other way round, and for a backslash within a
// POSIX name, which couldn't be told from a separator.
absl::StatusOr<std::string> SpellPath(const std::string& path, bool absolute);

}  // namespace bothy::disk::vhdx
