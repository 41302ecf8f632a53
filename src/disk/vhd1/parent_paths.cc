#include "disk/vhd1/parent_paths.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/utf16.h"
#include "disk/windows_path.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr std::string_view kFileUrl = "file://";
// Room for a path to become longer without moving.
constexpr size_t kSmallestRoom = 1024;

// "file://localhost/images/my%20base.vhd" is "/images/my base.vhd".
std::string PathOfUrl(std::string_view url) {
  if (url.starts_with(kFileUrl)) {
    url.remove_prefix(kFileUrl.size());
    url.remove_prefix(std::min(url.find('/'), url.size()));
  }
  std::string path;
  for (size_t i = 0; i < url.size(); ++i) {
    const bool escaped = url[i] == '%' && i + 2 < url.size() && isxdigit(url[i + 1]) != 0 &&
                         isxdigit(url[i + 2]) != 0;
    if (!escaped) {
      path.push_back(url[i]);
      continue;
    }
    const std::string digits(url.substr(i + 1, 2));
    path.push_back(static_cast<char>(std::strtoul(digits.c_str(), nullptr, 16)));
    i += 2;
  }
  return path;
}

// A child that was moved together with its parent finds it by the relative path.
constexpr uint32_t kInOrder[] = {kWindowsRelative, kOldWindowsRelative, kWindowsAbsolute,
                                 kOldWindowsAbsolute, kMacUrl};

struct Spelled {
  std::string text;
  std::string path;
};

// What one locator says; nothing for one that makes no sense.
std::optional<Spelled> Interpret(uint32_t code, std::span<const uint8_t> bytes) {
  Spelled spelled;
  if (code == kWindowsRelative || code == kWindowsAbsolute) {
    // Some end it with a NUL, some don't.
    while (bytes.size() >= 2 && bytes[bytes.size() - 1] == 0 && bytes[bytes.size() - 2] == 0) {
      bytes = bytes.first(bytes.size() - 2);
    }
    absl::StatusOr<std::string> text = Utf16ToUtf8(bytes);
    if (!text.ok()) return std::nullopt;
    spelled.text = *std::move(text);
    spelled.path = PosixPath(spelled.text);
  } else {
    spelled.text.assign(bytes.begin(), std::find(bytes.begin(), bytes.end(), 0));
    spelled.path = code == kMacUrl ? PathOfUrl(spelled.text) : PosixPath(spelled.text);
  }
  if (spelled.path.empty() || spelled.path.find('\0') != std::string::npos) return std::nullopt;
  return spelled;
}

void Append(const Spelled& spelled, ParentReference& reference) {
  if (std::ranges::find(reference.spelled_paths, spelled.text) == reference.spelled_paths.end()) {
    reference.spelled_paths.push_back(spelled.text);
  }
  if (std::ranges::find(reference.candidate_paths, spelled.path) ==
      reference.candidate_paths.end()) {
    reference.candidate_paths.push_back(spelled.path);
  }
}

}  // namespace

Task<absl::StatusOr<ParentReference>> ReadParentReference(Storage& storage,
                                                          const DynamicHeader& header,
                                                          uint64_t header_offset) {
  ParentReference reference;
  reference.child_path = storage.path();
  for (const uint32_t code : kInOrder) {
    for (const LocatorEntry& entry : header.locators) {
      if (entry.platform_code != code || entry.data_length == 0) continue;
      if (entry.data_length > kMaxLocatorBytes || entry.data_offset > storage.size() ||
          entry.data_length > storage.size() - entry.data_offset) {
        continue;
      }
      std::vector<uint8_t> bytes(entry.data_length);
      const std::span<uint8_t> target(bytes);
      absl::Status status = co_await ReadAt(storage, entry.data_offset, target);
      CO_RETURN_IF_ERROR(status);
      const std::optional<Spelled> spelled = Interpret(code, bytes);
      if (spelled.has_value()) Append(*spelled, reference);
    }
  }
  if (!header.parent_name.empty()) {
    Append({.text = header.parent_name, .path = PosixPath(header.parent_name)}, reference);
  }
  if (reference.candidate_paths.empty()) {
    co_return Damaged(header_offset + kLocatorsAt, "DynamicHeader.ParentLocatorEntry",
                      "no locator names a parent");
  }
  co_return reference;
}

absl::StatusOr<std::vector<EncodedLocator>> EncodeParentPaths(const ParentSpelling& parent) {
  std::vector<EncodedLocator> locators;
  const std::pair<uint32_t, const std::string&> spellings[] = {
      {kWindowsRelative, parent.relative_path}, {kWindowsAbsolute, parent.absolute_path}};
  for (const auto& [code, path] : spellings) {
    if (path.empty()) continue;
    if (path.starts_with("/") != (code == kWindowsAbsolute)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parent path ", path, ": isn't ", code == kWindowsAbsolute ? "absolute" : "relative"));
    }
    ASSIGN_OR_RETURN(const std::string spelled, WindowsPath(path));
    ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, Utf8ToUtf16(spelled));
    const size_t room =
        std::max(kSmallestRoom, (bytes.size() + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
    if (bytes.size() > kMaxLocatorBytes) {
      return absl::InvalidArgumentError(absl::StrCat("parent path ", path, ": is too long"));
    }
    const LocatorEntry entry = {.platform_code = code,
                                .data_space = static_cast<uint32_t>(room),
                                .data_length = static_cast<uint32_t>(bytes.size()),
                                .data_offset = 0};
    locators.push_back({.entry = entry, .bytes = std::move(bytes)});
  }
  if (locators.empty()) return absl::InvalidArgumentError("parent path: there is none");
  return locators;
}

absl::StatusOr<std::string> ParentName(const ParentSpelling& parent) {
  const std::string& path =
      parent.absolute_path.empty() ? parent.relative_path : parent.absolute_path;
  ASSIGN_OR_RETURN(std::string name, WindowsPath(path));
  ASSIGN_OR_RETURN(const std::vector<uint8_t> encoded, Utf8ToUtf16(name));
  if (encoded.size() <= kParentNameBytes) return name;
  // The locators have the whole of it; here the file's name is better than nothing.
  name.erase(0, name.rfind('\\') + 1);
  return name;
}

}  // namespace bothy::disk::vhd1
