#include "disk/vhdx/parent_locator.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/utf16.h"
#include "disk/vhdx/format.h"
#include "disk/windows_path.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr size_t kLocatorHeaderBytes = 20;
constexpr size_t kEntryBytes = 12;
constexpr size_t kMaxEntries = 64;  // not of the format, which knows five
constexpr std::string_view kExtendedPrefix = R"(\\?\)";

std::string FieldName(size_t index, std::string_view field) {
  return absl::StrCat("ParentLocator[", index, "].", std::string(field));
}

// The string of `length` bytes at `at` of the item.
absl::StatusOr<std::string> ReadString(std::span<const uint8_t> bytes, uint64_t offset, uint32_t at,
                                       uint16_t length, const std::string& field) {
  if (at == 0 || length == 0 || at > bytes.size() || length > bytes.size() - at) {
    return Damaged(offset, field,
                   absl::StrCat(length, " bytes at ", at, " of an item of ", bytes.size()));
  }
  absl::StatusOr<std::string> text = Utf16ToUtf8(bytes.subspan(at, length));
  if (!text.ok()) return Damaged(offset + at, field, std::string(text.status().message()));
  return text;
}

}  // namespace

const std::string* ParentLocator::Find(std::string_view key) const {
  const auto found = std::ranges::find_if(entries, [key](const auto& e) { return e.first == key; });
  return found == entries.end() ? nullptr : &found->second;
}

void ParentLocator::Set(std::string_view key, std::string_view value) {
  std::erase_if(entries, [key, value](const auto& e) { return e.first == key && value.empty(); });
  if (value.empty()) return;
  const auto found = std::ranges::find_if(entries, [key](const auto& e) { return e.first == key; });
  if (found != entries.end()) {
    found->second = value;
  } else {
    entries.emplace_back(key, value);
  }
}

absl::StatusOr<std::vector<Guid>> ParentLocator::Linkages() const {
  std::vector<Guid> linkages;
  for (const std::string_view key : {kParentLinkage, kParentLinkage2}) {
    const std::string* value = Find(key);
    if (value == nullptr) continue;
    absl::StatusOr<Guid> linkage = Guid::Parse(*value);
    if (!linkage.ok()) return WithContext(linkage.status(), key);
    linkages.push_back(*linkage);
  }
  if (Find(kParentLinkage) == nullptr) return absl::DataLossError("no parent_linkage");
  return linkages;
}

ParentReference ParentLocator::Reference(const std::string& child_path) const {
  ParentReference reference = {
      .child_path = child_path, .candidate_paths = {}, .spelled_paths = {}};
  for (const std::string_view key : {kRelativePath, kVolumePath, kAbsoluteWin32Path}) {
    const std::string* value = Find(key);
    if (value == nullptr) continue;
    std::string path = PosixPath(*value);
    if (std::ranges::find(reference.candidate_paths, path) == reference.candidate_paths.end()) {
      reference.candidate_paths.push_back(std::move(path));
    }
    reference.spelled_paths.push_back(*value);
  }
  return reference;
}

absl::StatusOr<ParentLocator> ParseParentLocator(std::span<const uint8_t> bytes, uint64_t offset) {
  if (bytes.size() < kLocatorHeaderBytes) {
    return Damaged(offset, "ParentLocator", absl::StrCat("has only ", bytes.size(), " bytes"));
  }
  Guid type;
  std::memcpy(type.bytes.data(), bytes.data(), 16);
  if (type != kVhdxLocatorType) {
    return Unsupported(offset, "ParentLocator.LocatorType",
                       absl::StrCat(type.ToString(), " isn't known"));
  }
  const size_t count = LoadLe<uint16_t>(bytes.data() + 18);
  if (count * kEntryBytes > bytes.size() - kLocatorHeaderBytes) {
    return Damaged(offset + 18, "ParentLocator.KeyValueCount",
                   absl::StrCat(count, " entries don't fit into ", bytes.size(), " bytes"));
  }
  if (count > kMaxEntries) {
    return Unsupported(offset + 18, "ParentLocator.KeyValueCount",
                       absl::StrCat(count, " is over ", kMaxEntries));
  }
  ParentLocator locator;
  // Entries that share their strings could ask for far more memory than the item has.
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = kLocatorHeaderBytes + i * kEntryBytes;
    const uint8_t* entry = bytes.data() + at;
    const auto key_length = LoadLe<uint16_t>(entry + 8);
    const auto value_length = LoadLe<uint16_t>(entry + 10);
    total += key_length + value_length;
    if (total > bytes.size()) {
      return Damaged(offset + at, FieldName(i, "KeyLength"), "strings overlap");
    }
    ASSIGN_OR_RETURN(std::string key, ReadString(bytes, offset, LoadLe<uint32_t>(entry), key_length,
                                                 FieldName(i, "KeyOffset")));
    ASSIGN_OR_RETURN(std::string value, ReadString(bytes, offset, LoadLe<uint32_t>(entry + 4),
                                                   value_length, FieldName(i, "ValueOffset")));
    if (locator.Find(key) != nullptr) {
      return Damaged(offset + at, FieldName(i, "KeyOffset"), absl::StrCat(key, " is there twice"));
    }
    locator.entries.emplace_back(std::move(key), std::move(value));
  }
  absl::StatusOr<std::vector<Guid>> linkages = locator.Linkages();
  if (!linkages.ok())
    return Damaged(offset, "ParentLocator", std::string(linkages.status().message()));
  if (locator.Reference("").candidate_paths.empty()) {
    return Damaged(offset, "ParentLocator", "has no path");
  }
  return locator;
}

absl::StatusOr<std::vector<uint8_t>> BuildParentLocator(const ParentLocator& locator) {
  std::vector<uint8_t> bytes(kLocatorHeaderBytes + locator.entries.size() * kEntryBytes);
  std::memcpy(bytes.data(), kVhdxLocatorType.bytes.data(), 16);
  StoreLe(bytes.data() + 18, static_cast<uint16_t>(locator.entries.size()));
  size_t at = kLocatorHeaderBytes;
  for (const auto& [key, value] : locator.entries) {
    size_t field = 0;
    for (const std::string* text : {&key, &value}) {
      ASSIGN_OR_RETURN(std::vector<uint8_t> encoded, Utf8ToUtf16(*text));
      if (encoded.empty() || encoded.size() > UINT16_MAX) {
        return absl::InvalidArgumentError(absl::StrCat(key, ": empty or too long"));
      }
      StoreLe(bytes.data() + at + 4 * field, static_cast<uint32_t>(bytes.size()));
      StoreLe(bytes.data() + at + 8 + 2 * field, static_cast<uint16_t>(encoded.size()));
      bytes.insert(bytes.end(), encoded.begin(), encoded.end());
      ++field;
    }
    at += kEntryBytes;
  }
  return bytes;
}

std::string SpellLinkage(const Guid& linkage) { return absl::StrCat("{", linkage.ToString(), "}"); }

absl::StatusOr<std::string> SpellPath(const std::string& path, bool absolute) {
  if (path.starts_with(kExtendedPrefix) || path.starts_with(R"(.\)") ||
      path.starts_with(R"(..\)")) {
    return path;
  }
  if (path.starts_with("/") != absolute) {
    return absl::InvalidArgumentError(
        absl::StrCat("parent path ", path, ": not ", absolute ? "absolute" : "relative"));
  }
  ASSIGN_OR_RETURN(std::string spelled, WindowsPath(path));
  if (!absolute) return spelled;
  // "\\?\" stands for the first separator, too.
  return absl::StrCat(std::string(kExtendedPrefix), spelled.substr(1));
}

}  // namespace bothy::disk::vhdx
