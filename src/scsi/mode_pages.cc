// MODE SENSE and MODE SELECT (SPC-5, 6.14 to 6.17, 7.5; SBC-4, 6.5). Two bits can be changed: WCE,
// without which every write is flushed before it ends, and D_SENSE.
#include <algorithm>
#include <array>
#include <limits>

#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kErrorRecovery = 0x01;
constexpr uint8_t kCaching = 0x08;
constexpr uint8_t kControl = 0x0A;
constexpr uint8_t kInformationalExceptions = 0x1C;
constexpr uint8_t kAllPages = 0x3F;
constexpr uint8_t kAllSubpages = 0xFF;

constexpr uint8_t kModeSelect10 = 0x55;
constexpr uint8_t kModeSense10 = 0x5A;

// PAGE CONTROL.
constexpr uint8_t kChangeable = 1;
constexpr uint8_t kDefault = 2;
constexpr uint8_t kSaved = 3;

constexpr uint8_t kWriteCacheEnable = 0x04;  // byte 2 of the caching page
constexpr uint8_t kDescriptorSense = 0x04;   // byte 2 of the control page

constexpr uint8_t kWriteProtect = 0x80;  // device-specific parameter
constexpr uint8_t kDpoFua = 0x10;
constexpr size_t kShortDescriptorBytes = 8;
constexpr size_t kLongDescriptorBytes = 16;
// Longer parameter lists than all pages with a header and a block descriptor are mistakes.
constexpr size_t kMaxParameterBytes = 1024;

// The mode parameter header and the block descriptors behind it (SPC-5, 7.5.5).
struct Header {
  size_t bytes = 0;
  size_t block_descriptor_bytes = 0;
  bool long_descriptors = false;
};

Header ParseHeader(bool ten, std::span<const uint8_t> list) {
  if (!ten) return {.bytes = 4, .block_descriptor_bytes = list[3], .long_descriptors = false};
  return {.bytes = 8,
          .block_descriptor_bytes = LoadBe<uint16_t>(&list[6]),
          .long_descriptors = (list[4] & 0x01) != 0};
}

}  // namespace

std::vector<LogicalUnit::ModePage> LogicalUnit::ModePages() const {
  const auto page = [](uint8_t code, uint8_t bytes) {
    std::vector<uint8_t> data(2 + size_t{bytes});
    data[0] = code;
    data[1] = bytes;
    return data;
  };
  const auto fixed = [](const std::vector<uint8_t>& values) {
    ModePage result = {.current = values, .changeable = values, .defaults = values};
    std::fill(result.changeable.begin() + 2, result.changeable.end(), uint8_t{0});
    return result;
  };
  std::vector<uint8_t> recovery = page(kErrorRecovery, 0x0A);
  recovery[2] = 0xC0;  // AWRE, ARRE
  ModePage caching = fixed(page(kCaching, 0x12));
  caching.defaults[2] = caching.changeable[2] = kWriteCacheEnable;
  caching.current[2] = write_cache_ ? kWriteCacheEnable : 0;
  std::vector<uint8_t> control_values = page(kControl, 0x0A);
  control_values[3] = 0x10;  // unrestricted reordering
  ModePage control = fixed(control_values);
  control.changeable[2] = kDescriptorSense;
  control.current[2] = descriptor_sense_ ? kDescriptorSense : 0;
  std::vector<uint8_t> exceptions = page(kInformationalExceptions, 0x0A);
  exceptions[2] = 0x08;  // DEXCPT: there will be none
  return {fixed(recovery), std::move(caching), std::move(control), fixed(exceptions)};
}

void LogicalUnit::ModeSense(Command& command) {
  const uint8_t* cdb = command.cdb();
  const bool ten = cdb[0] == kModeSense10;
  const bool no_block_descriptor = (cdb[1] & 0x08) != 0;
  const bool long_descriptor = ten && (cdb[1] & 0x10) != 0;  // LLBAA
  const uint8_t values = cdb[2] >> 6;
  const uint8_t wanted = cdb[2] & 0x3F;
  if (values == kSaved) return Check(command, kSavingNotSupported);
  if (cdb[3] != 0 && cdb[3] != kAllSubpages) return InvalidField(command, 3);

  std::vector<uint8_t> data(ten ? 8 : 4);
  if (!no_block_descriptor) {
    const size_t bytes = long_descriptor ? kLongDescriptorBytes : kShortDescriptorBytes;
    std::array<uint8_t, kLongDescriptorBytes> descriptor{};
    if (long_descriptor) {
      StoreBe(descriptor.data(), blocks());
      StoreBe(&descriptor[12], block_bytes());
    } else {
      constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
      StoreBe(descriptor.data(), static_cast<uint32_t>(std::min(blocks(), kMax)));
      StoreBe(&descriptor[4], block_bytes());  // three bytes of it; the first is reserved
    }
    data.insert(data.end(), descriptor.begin(), descriptor.begin() + static_cast<long>(bytes));
    data[ten ? 7 : 3] = static_cast<uint8_t>(bytes);
    if (ten && long_descriptor) data[4] = 0x01;
  }
  bool found = false;
  for (const ModePage& page : ModePages()) {
    if (wanted != kAllPages && wanted != page.current[0]) continue;
    found = true;
    const std::vector<uint8_t>& bytes = values == kChangeable ? page.changeable
                                        : values == kDefault  ? page.defaults
                                                              : page.current;
    data.insert(data.end(), bytes.begin(), bytes.end());
  }
  if (!found) return InvalidField(command, 2, 5);
  const auto device_specific = static_cast<uint8_t>(kDpoFua | (read_only() ? kWriteProtect : 0));
  if (ten) {
    StoreBe(data.data(), static_cast<uint16_t>(data.size() - 2));
    data[3] = device_specific;
  } else {
    data[0] = static_cast<uint8_t>(data.size() - 1);
    data[2] = device_specific;
  }
  Return(command, data, ten ? LoadBe<uint16_t>(cdb + 7) : cdb[4]);
}

void LogicalUnit::ModeSelect(Command& command) {
  const uint8_t* cdb = command.cdb();
  const bool ten = cdb[0] == kModeSelect10;
  if ((cdb[1] & 0x10) == 0) return InvalidField(command, 1, 4);  // PF: pages of the standards
  if ((cdb[1] & 0x01) != 0) return InvalidField(command, 1, 0);  // SP: nothing is saved
  const size_t length = ten ? LoadBe<uint16_t>(cdb + 7) : cdb[4];
  if (length == 0) return Good(command);
  if (length < (ten ? 8U : 4U) || length > kMaxParameterBytes) {
    return Check(command, kParameterListLengthError);
  }
  std::vector<uint8_t> list(length);
  if (!TakeDataOut(command, 0, list)) return;

  const Header header = ParseHeader(ten, list);
  if (header.block_descriptor_bytes > length - header.bytes) {
    return Check(command, kParameterListLengthError);
  }
  const auto block_at = static_cast<uint16_t>(header.bytes);
  if (header.block_descriptor_bytes != 0) {
    // A format that the disk has already; no other can be had.
    const uint8_t* descriptor = &list[block_at];
    if (header.block_descriptor_bytes !=
        (header.long_descriptors ? kLongDescriptorBytes : kShortDescriptorBytes)) {
      return InvalidParameter(command, static_cast<uint16_t>(ten ? 6 : 3));
    }
    const uint64_t count =
        header.long_descriptors ? LoadBe<uint64_t>(descriptor) : LoadBe<uint32_t>(descriptor);
    const uint32_t bytes = header.long_descriptors ? LoadBe<uint32_t>(descriptor + 12)
                                                   : LoadBe<uint32_t>(descriptor + 4) & 0xFF'FFFF;
    const uint64_t most = header.long_descriptors ? std::numeric_limits<uint64_t>::max()
                                                  : std::numeric_limits<uint32_t>::max();
    if (count != 0 && count != most && count != blocks())
      return InvalidParameter(command, block_at);
    if (bytes != block_bytes()) {
      return InvalidParameter(command,
                              static_cast<uint16_t>(block_at + (header.long_descriptors ? 12 : 5)));
    }
  }

  // All of it is checked before any of it counts.
  const std::vector<ModePage> pages = ModePages();
  bool write_cache = write_cache_;
  bool descriptor_sense = descriptor_sense_;
  for (size_t at = header.bytes + header.block_descriptor_bytes; at < length;) {
    const uint8_t code = list[at] & 0x3F;
    const bool has_subpage = (list[at] & 0x40) != 0;
    const auto page = std::find_if(pages.begin(), pages.end(), [code](const ModePage& each) {
      return each.current[0] == code;
    });
    if (has_subpage || page == pages.end()) {
      return InvalidParameter(command, static_cast<uint16_t>(at));
    }
    const size_t size = page->current.size();
    if (length - at < 2) return Check(command, kParameterListLengthError);
    if (list[at + 1] != page->current[1]) {
      return InvalidParameter(command, static_cast<uint16_t>(at + 1));
    }
    if (length - at < size) return Check(command, kParameterListLengthError);
    for (size_t i = 2; i < size; ++i) {
      if (((list[at + i] ^ page->current[i]) & ~page->changeable[i]) != 0) {
        return InvalidParameter(command, static_cast<uint16_t>(at + i));
      }
    }
    if (code == kCaching) write_cache = (list[at + 2] & kWriteCacheEnable) != 0;
    if (code == kControl) descriptor_sense = (list[at + 2] & kDescriptorSense) != 0;
    at += size;
  }
  descriptor_sense_ = descriptor_sense;
  const bool cache_goes = write_cache_ && !write_cache;
  write_cache_ = write_cache;
  // From now on what ended is safe: that includes what ended before.
  if (cache_goes && blocks() != 0) return StartFlush(command);
  Good(command);
}

}  // namespace bothy::scsi
