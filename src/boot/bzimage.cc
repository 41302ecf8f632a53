#include "boot/bzimage.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boot/low_memory_map.h"
#include "support/endian.h"

namespace bothy::boot {
namespace {

constexpr size_t kSetupHeaderOffset = 0x1f1;
// The jump at 0x200 skips the header: its displacement says where the header ends.
constexpr size_t kHeaderEndBase = 0x202;
constexpr size_t kJumpDisplacementOffset = 0x201;
constexpr uint16_t kBootFlag = 0xAA55;
constexpr uint16_t kMinVersion = 0x020C;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kParagraphBytes = 16;
constexpr uint8_t kDefaultSetupSectors = 4;
// The 64-bit entry point lies this far into the protected-mode part.
constexpr uint64_t kMinProtectedModeBytes = 0x400;
// No kernel asks for nearly as much; keeps sums of it with addresses far from overflow.
constexpr uint64_t kMaxPreferredBase = uint64_t{1} << 46;

static_assert(kSetupHeaderOffset + sizeof(setup_header) <= kMaxSetupHeaderEnd);

}  // namespace

bool LooksLikeBzImage(std::span<const uint8_t> head) {
  return head.size() >= kSetupHeaderMagicOffset + sizeof(uint32_t) &&
         LoadLe<uint32_t>(head.data() + kSetupHeaderMagicOffset) == kSetupHeaderMagic;
}

absl::StatusOr<BzImage> ParseBzImage(std::span<const uint8_t> head, uint64_t file_bytes) {
  if (!LooksLikeBzImage(head)) return absl::InvalidArgumentError("isn't a bzImage");
  const size_t header_end = kHeaderEndBase + head[kJumpDisplacementOffset];
  // init_size, the last field that 2.12 must have.
  constexpr size_t kRequiredEnd =
      kSetupHeaderOffset + offsetof(setup_header, init_size) + sizeof(setup_header::init_size);
  if (header_end > head.size()) {
    return absl::InvalidArgumentError("bzImage's setup header is truncated");
  }
  BzImage image;
  std::memcpy(&image.header, head.data() + kSetupHeaderOffset,
              std::min(header_end - kSetupHeaderOffset, sizeof image.header));
  const setup_header& header = image.header;
  if (header.boot_flag != kBootFlag) {
    return absl::InvalidArgumentError("bzImage's boot flag is wrong");
  }
  if (header.version < kMinVersion) {
    return absl::InvalidArgumentError(
        absl::StrFormat("bzImage has boot protocol %d.%02d, 2.12 is the oldest that works",
                        header.version >> 8, header.version & 0xFF));
  }
  if (header_end < kRequiredEnd) {
    return absl::InvalidArgumentError("bzImage's setup header is shorter than its version needs");
  }
  if ((header.loadflags & LOADED_HIGH) == 0) {
    return absl::InvalidArgumentError("bzImage is a zImage, which loads below 1 MiB");
  }
  if ((header.xloadflags & XLF_KERNEL_64) == 0) {
    return absl::InvalidArgumentError("bzImage has no 64-bit entry point: a 32-bit kernel?");
  }

  const uint64_t setup_bytes =
      (uint64_t{header.setup_sects == 0 ? kDefaultSetupSectors : header.setup_sects} + 1) *
      kSectorBytes;
  image.protected_mode = {setup_bytes, header.syssize * kParagraphBytes};
  if (setup_bytes > file_bytes || image.protected_mode.size > file_bytes - setup_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("bzImage is truncated: ", file_bytes,
                                                   " bytes, its header promises ",
                                                   setup_bytes + image.protected_mode.size));
  }
  if (image.protected_mode.size < kMinProtectedModeBytes) {
    return absl::InvalidArgumentError("bzImage has no room for its 64-bit entry point");
  }
  if (header.payload_length == 0 || header.payload_offset > image.protected_mode.size ||
      header.payload_length > image.protected_mode.size - header.payload_offset) {
    return absl::InvalidArgumentError("bzImage's payload lies outside the image");
  }
  image.payload = {setup_bytes + header.payload_offset, header.payload_length};

  image.preferred_base = header.pref_address;
  if (image.preferred_base < kHighLoadBase || image.preferred_base > kMaxPreferredBase) {
    return absl::InvalidArgumentError(
        absl::StrFormat("bzImage prefers address 0x%x, which can't be", image.preferred_base));
  }
  image.init_bytes = std::max<uint64_t>(header.init_size, image.protected_mode.size);
  return image;
}

}  // namespace bothy::boot
