#include "disk/vhd1/dynamic_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/utf16.h"
#include "disk/vhd1/footer.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr char kCookie[] = "cxsparse";
constexpr size_t kCookieBytes = 8;
constexpr uint32_t kVersion = 0x00010000;
constexpr uint32_t kSmallestBlockBytes = 4096;

constexpr size_t kDataOffsetAt = 8;
constexpr size_t kTableOffsetAt = 16;
constexpr size_t kVersionAt = 24;
constexpr size_t kMaxTableEntriesAt = 28;
constexpr size_t kBlockSizeAt = 32;
constexpr size_t kParentUniqueIdAt = 40;
constexpr size_t kParentTimeStampAt = 56;
constexpr size_t kParentNameAt = 64;

void SwapPairs(std::span<uint8_t> bytes) {
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) std::swap(bytes[i], bytes[i + 1]);
}

}  // namespace

absl::StatusOr<std::array<uint8_t, kDynamicHeaderBytes>> DynamicHeader::Encode() const {
  std::array<uint8_t, kDynamicHeaderBytes> bytes{};
  uint8_t* at = bytes.data();
  std::memcpy(at, kCookie, kCookieBytes);
  StoreBe(at + kDataOffsetAt, kNoOffset);
  StoreBe(at + kTableOffsetAt, table_offset);
  StoreBe(at + kVersionAt, kVersion);
  StoreBe(at + kMaxTableEntriesAt, max_table_entries);
  StoreBe(at + kBlockSizeAt, block_size);
  StoreGuid(at + kParentUniqueIdAt, parent_unique_id);
  StoreBe(at + kParentTimeStampAt, parent_time_stamp);
  ASSIGN_OR_RETURN(std::vector<uint8_t> name, Utf8ToUtf16(parent_name));
  if (name.size() > kParentNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("parent path ", parent_name, ": longer than ",
                                                   kParentNameBytes / 2, " characters"));
  }
  SwapPairs(name);
  std::ranges::copy(name, at + kParentNameAt);
  for (size_t i = 0; i < kLocatorCount; ++i) {
    uint8_t* entry = at + kLocatorsAt + i * kLocatorEntryBytes;
    StoreBe(entry, locators[i].platform_code);
    StoreBe(entry + 4, locators[i].data_space);
    StoreBe(entry + 8, locators[i].data_length);
    StoreBe(entry + 16, locators[i].data_offset);
  }
  StoreBe(at + kHeaderChecksumAt, Checksum(bytes, kHeaderChecksumAt));
  return bytes;
}

absl::StatusOr<DynamicHeader> DecodeDynamicHeader(std::span<const uint8_t> bytes, uint64_t offset,
                                                  bool trust_checksum) {
  const uint8_t* at = bytes.data();
  if (std::memcmp(at, kCookie, kCookieBytes) != 0) {
    return Damaged(offset, "DynamicHeader.Cookie", "isn't \"cxsparse\"");
  }
  const auto checksum = LoadBe<uint32_t>(at + kHeaderChecksumAt);
  const uint32_t actual = Checksum(bytes, kHeaderChecksumAt);
  if (trust_checksum && actual != checksum) {
    return Damaged(offset + kHeaderChecksumAt, "DynamicHeader.Checksum",
                   absl::StrCat("is ", checksum, " where the bytes give ", actual));
  }
  if (const auto version = LoadBe<uint32_t>(at + kVersionAt); version >> 16 != kVersion >> 16) {
    return Unsupported(offset + kVersionAt, "DynamicHeader.HeaderVersion",
                       absl::StrCat("version ", version >> 16, " isn't known"));
  }
  DynamicHeader header;
  header.table_offset = LoadBe<uint64_t>(at + kTableOffsetAt);
  header.max_table_entries = LoadBe<uint32_t>(at + kMaxTableEntriesAt);
  header.block_size = LoadBe<uint32_t>(at + kBlockSizeAt);
  if (!std::has_single_bit(header.block_size) || header.block_size < kSmallestBlockBytes ||
      header.block_size > kMaxBlockBytes) {
    return Unsupported(offset + kBlockSizeAt, "DynamicHeader.BlockSize",
                       absl::StrCat(header.block_size, " isn't a power of two from ",
                                    kSmallestBlockBytes, " to ", kMaxBlockBytes));
  }
  header.parent_unique_id = LoadGuid(at + kParentUniqueIdAt);
  header.parent_time_stamp = LoadBe<uint32_t>(at + kParentTimeStampAt);
  std::vector<uint8_t> name(at + kParentNameAt, at + kParentNameAt + kParentNameBytes);
  SwapPairs(name);
  size_t length = 0;
  while (length < name.size() && LoadLe<uint16_t>(name.data() + length) != 0) length += 2;
  // Only one of several spellings, and the least precise: a broken one isn't worth an error.
  if (absl::StatusOr<std::string> text = Utf16ToUtf8(std::span<const uint8_t>(name).first(length));
      text.ok()) {
    header.parent_name = *std::move(text);
  }
  for (size_t i = 0; i < kLocatorCount; ++i) {
    const uint8_t* entry = at + kLocatorsAt + i * kLocatorEntryBytes;
    header.locators[i] = {.platform_code = LoadBe<uint32_t>(entry),
                          .data_space = LoadBe<uint32_t>(entry + 4),
                          .data_length = LoadBe<uint32_t>(entry + 8),
                          .data_offset = LoadBe<uint64_t>(entry + 16)};
  }
  return header;
}

}  // namespace bothy::disk::vhd1
