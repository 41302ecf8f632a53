#include "disk/vhd1/footer.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr char kCookie[] = "conectix";
constexpr size_t kCookieBytes = 8;
constexpr uint32_t kReservedFeature = 2;  // always set
constexpr uint32_t kVersion = 0x00010000;
constexpr int64_t kEpoch = 946684800;  // 2000-01-01 00:00:00 UTC

constexpr size_t kFeaturesAt = 8;
constexpr size_t kVersionAt = 12;
constexpr size_t kDataOffsetAt = 16;
constexpr size_t kTimeStampAt = 24;
constexpr size_t kCreatorApplicationAt = 28;
constexpr size_t kCreatorVersionAt = 32;
constexpr size_t kCreatorHostOsAt = 36;
constexpr size_t kOriginalSizeAt = 40;
constexpr size_t kCurrentSizeAt = 48;
constexpr size_t kGeometryAt = 56;
constexpr size_t kTypeAt = 60;
constexpr size_t kChecksumAt = 64;
constexpr size_t kUniqueIdAt = 68;
constexpr size_t kSavedStateAt = 84;

// What Hyper-V writes: readers that go by the creator take the Current Size as the disk's size only
// from those they know.
constexpr std::array<char, 4> kCreator = {'w', 'i', 'n', ' '};
constexpr uint32_t kCreatorVersion = 0x000A0000;
constexpr std::array<char, 4> kHostOs = {'W', 'i', '2', 'k'};
constexpr std::array<char, 4> kQemu = {'q', 'e', 'm', 'u'};

constexpr ChsGeometry kLargestGeometry = {
    .cylinders = 65535, .heads = 16, .sectors_per_track = 255};

}  // namespace

ChsGeometry ChsGeometry::For(uint64_t sectors) {
  sectors = std::min(sectors, kLargestGeometry.sectors());
  uint64_t per_track;
  uint64_t heads;
  if (sectors >= uint64_t{65535} * 16 * 63) {
    per_track = 255;
    heads = 16;
  } else {
    per_track = 17;
    uint64_t tracks = sectors / per_track;
    heads = std::max<uint64_t>((tracks + 1023) / 1024, 4);
    if (tracks >= heads * 1024 || heads > 16) {
      per_track = 31;
      heads = 16;
      tracks = sectors / per_track;
    }
    if (tracks >= heads * 1024) {
      per_track = 63;
      heads = 16;
    }
  }
  return {.cylinders = static_cast<uint16_t>(sectors / per_track / heads),
          .heads = static_cast<uint8_t>(heads),
          .sectors_per_track = static_cast<uint8_t>(per_track)};
}

uint64_t Footer::disk_bytes() const {
  if (creator_application == kQemu && geometry.sectors() != 0 && geometry != kLargestGeometry) {
    return geometry.sectors() * kSectorBytes;
  }
  return current_size;
}

std::array<uint8_t, kFooterBytes> Footer::Encode() const {
  std::array<uint8_t, kFooterBytes> bytes{};
  uint8_t* at = bytes.data();
  std::memcpy(at, kCookie, kCookieBytes);
  StoreBe(at + kFeaturesAt, kReservedFeature);
  StoreBe(at + kVersionAt, kVersion);
  StoreBe(at + kDataOffsetAt, data_offset);
  StoreBe(at + kTimeStampAt, time_stamp);
  std::memcpy(at + kCreatorApplicationAt, creator_application.data(), 4);
  StoreBe(at + kCreatorVersionAt, creator_version);
  std::memcpy(at + kCreatorHostOsAt, creator_host_os.data(), 4);
  StoreBe(at + kOriginalSizeAt, original_size);
  StoreBe(at + kCurrentSizeAt, current_size);
  StoreBe(at + kGeometryAt, geometry.cylinders);
  at[kGeometryAt + 2] = geometry.heads;
  at[kGeometryAt + 3] = geometry.sectors_per_track;
  StoreBe(at + kTypeAt, static_cast<uint32_t>(type));
  StoreGuid(at + kUniqueIdAt, unique_id);
  at[kSavedStateAt] = saved_state ? 1 : 0;
  StoreBe(at + kChecksumAt, Checksum(bytes, kChecksumAt));
  return bytes;
}

Footer MakeFooter(uint64_t size_bytes, DiskType type, const Guid& unique_id) {
  Footer footer;
  footer.data_offset = type == DiskType::kFixed ? kNoOffset : kFooterBytes;
  footer.time_stamp = ToTimeStamp(std::time(nullptr));
  footer.creator_application = kCreator;
  footer.creator_version = kCreatorVersion;
  footer.creator_host_os = kHostOs;
  footer.original_size = size_bytes;
  footer.current_size = size_bytes;
  footer.geometry = ChsGeometry::For(size_bytes / kSectorBytes);
  footer.type = type;
  footer.unique_id = unique_id.is_zero() ? Guid::Random() : unique_id;
  return footer;
}

absl::StatusOr<Footer> DecodeFooter(std::span<const uint8_t> bytes, uint64_t offset) {
  if (!HasFooterCookie(bytes)) return absl::NotFoundError("no VHD footer");
  const uint8_t* at = bytes.data();
  const auto checksum = LoadBe<uint32_t>(at + kChecksumAt);
  if (const uint32_t actual = Checksum(bytes, kChecksumAt); actual != checksum) {
    return Damaged(offset + kChecksumAt, "Footer.Checksum",
                   absl::StrCat("is ", checksum, " where the bytes give ", actual));
  }
  if (const auto version = LoadBe<uint32_t>(at + kVersionAt); version >> 16 != kVersion >> 16) {
    return Unsupported(offset + kVersionAt, "Footer.FileFormatVersion",
                       absl::StrCat("version ", version >> 16, " isn't known"));
  }
  const auto type = LoadBe<uint32_t>(at + kTypeAt);
  if (type < static_cast<uint32_t>(DiskType::kFixed) ||
      type > static_cast<uint32_t>(DiskType::kDifferencing)) {
    return Unsupported(offset + kTypeAt, "Footer.DiskType",
                       absl::StrCat("type ", type, " isn't known"));
  }
  Footer footer;
  footer.data_offset = LoadBe<uint64_t>(at + kDataOffsetAt);
  footer.time_stamp = LoadBe<uint32_t>(at + kTimeStampAt);
  std::memcpy(footer.creator_application.data(), at + kCreatorApplicationAt, 4);
  footer.creator_version = LoadBe<uint32_t>(at + kCreatorVersionAt);
  std::memcpy(footer.creator_host_os.data(), at + kCreatorHostOsAt, 4);
  footer.original_size = LoadBe<uint64_t>(at + kOriginalSizeAt);
  footer.current_size = LoadBe<uint64_t>(at + kCurrentSizeAt);
  footer.geometry = {.cylinders = LoadBe<uint16_t>(at + kGeometryAt),
                     .heads = at[kGeometryAt + 2],
                     .sectors_per_track = at[kGeometryAt + 3]};
  footer.type = static_cast<DiskType>(type);
  footer.unique_id = LoadGuid(at + kUniqueIdAt);
  footer.saved_state = at[kSavedStateAt] != 0;
  const uint64_t size = footer.disk_bytes();
  if (size == 0 || size % kSectorBytes != 0) {
    return Damaged(offset + kCurrentSizeAt, "Footer.CurrentSize",
                   absl::StrCat(size, " isn't a whole number of sectors above 0"));
  }
  if (size > kMaxDiskBytes) {
    return Unsupported(offset + kCurrentSizeAt, "Footer.CurrentSize",
                       absl::StrCat(size, " is over ", kMaxDiskBytes));
  }
  return footer;
}

bool HasFooterCookie(std::span<const uint8_t> bytes) {
  return bytes.size() >= kShortFooterBytes && std::memcmp(bytes.data(), kCookie, kCookieBytes) == 0;
}

uint32_t Checksum(std::span<const uint8_t> bytes, size_t checksum_at) {
  uint32_t sum = 0;
  for (const uint8_t byte : bytes) sum += byte;
  for (const uint8_t byte : bytes.subspan(checksum_at, 4)) sum -= byte;
  return ~sum;
}

Guid LoadGuid(const uint8_t* from) {
  Guid guid;
  std::memcpy(guid.bytes.data(), from, 16);
  std::reverse(guid.bytes.begin(), guid.bytes.begin() + 4);
  std::reverse(guid.bytes.begin() + 4, guid.bytes.begin() + 6);
  std::reverse(guid.bytes.begin() + 6, guid.bytes.begin() + 8);
  return guid;
}

void StoreGuid(uint8_t* to, const Guid& guid) {
  Guid swapped = LoadGuid(guid.bytes.data());
  std::memcpy(to, swapped.bytes.data(), 16);
}

uint32_t ToTimeStamp(int64_t unix_seconds) {
  const int64_t seconds = unix_seconds - kEpoch;
  return seconds < 0 || seconds > UINT32_MAX ? 0 : static_cast<uint32_t>(seconds);
}

}  // namespace bothy::disk::vhd1
