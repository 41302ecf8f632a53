// What a unit says of itself: INQUIRY with its vital product data, READ CAPACITY, GET LBA STATUS.
#include "scsi/inquiry.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

// VPD pages (SPC-5, 7.7; SBC-4, 6.6).
constexpr uint8_t kSupportedPages = 0x00;
constexpr uint8_t kUnitSerialNumber = 0x80;
constexpr uint8_t kDeviceIdentification = 0x83;
constexpr uint8_t kExtendedInquiry = 0x86;
constexpr uint8_t kBlockLimits = 0xB0;
constexpr uint8_t kBlockCharacteristics = 0xB1;
constexpr uint8_t kLogicalBlockProvisioning = 0xB2;

constexpr uint32_t kMaxUnmapBlocks = 1U << 23;
constexpr uint32_t kMaxUnmapDescriptors = 256;
constexpr uint64_t kMaxWriteSameBlocks = 1U << 23;

void PutText(std::span<uint8_t> field, std::string_view text) {
  std::fill(field.begin(), field.end(), uint8_t{' '});
  std::memcpy(field.data(), text.data(), std::min(field.size(), text.size()));
}

// A name of 60 bits for a serial number: FNV-1a, which is the same everywhere and for ever.
uint64_t NameOf(std::string_view serial) {
  uint64_t hash = 0xCBF2'9CE4'8422'2325;
  for (const char c : serial) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100'0000'01B3;
  }
  return hash & 0x0FFF'FFFF'FFFF'FFFF;
}

}  // namespace

std::array<uint8_t, 36> StandardInquiry(bool present) {
  std::array<uint8_t, 36> data{};
  data[0] = present ? 0x00 : 0x7F;  // a disk, or a place where one could never be
  data[2] = 0x06;                   // SPC-4: what Linux and Windows expect of a disk with VPD
  data[3] = 0x12;                   // HISUP, response data format 2
  data[4] = static_cast<uint8_t>(data.size() - 5);
  data[7] = 0x02;  // CMDQUE
  PutText(std::span(data).subspan(8, 8), "BOTHY");
  PutText(std::span(data).subspan(16, 16), "VIRTUAL DISK");
  PutText(std::span(data).subspan(32, 4), "1");
  return data;
}

void LogicalUnit::Inquiry(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  const uint16_t allocation = LoadBe<uint16_t>(cdb + 3);
  if ((cdb[1] & 1) != 0) return VitalProductData(command, cdb[2], allocation);
  if (cdb[2] != 0) return InvalidField(command, 2);
  const auto data = StandardInquiry(/*present=*/true);
  Return(command, data, allocation);
}

void LogicalUnit::VitalProductData(Command& command, uint8_t page, uint64_t allocation_length) {
  const disk::Geometry& geometry = disk_->geometry();
  const uint32_t block = geometry.logical_sector_bytes;
  const uint32_t granularity = geometry.discard_granularity_bytes / block;
  std::vector<uint8_t> data(4);
  data[1] = page;
  switch (page) {
    case kSupportedPages:
      data.insert(data.end(),
                  {kSupportedPages, kUnitSerialNumber, kDeviceIdentification, kExtendedInquiry,
                   kBlockLimits, kBlockCharacteristics, kLogicalBlockProvisioning});
      break;
    case kUnitSerialNumber:
      data.insert(data.end(), serial_.begin(), serial_.end());
      break;
    case kDeviceIdentification: {
      // T10 vendor identification: vendor and serial, ASCII.
      std::string name = "BOTHY   " + serial_;
      data.insert(data.end(), {0x02, 0x01, 0x00, static_cast<uint8_t>(name.size())});
      data.insert(data.end(), name.begin(), name.end());
      // NAA, locally assigned.
      std::array<uint8_t, 12> naa = {0x01, 0x03, 0x00, 0x08};
      StoreBe(&naa[4], uint64_t{3} << 60 | NameOf(serial_));
      data.insert(data.end(), naa.begin(), naa.end());
      break;
    }
    case kExtendedInquiry:
      data.resize(64);
      data[5] = 0x01;  // SIMPSUP
      data[6] = 0x01;  // V_SUP: there is a volatile cache
      break;
    case kBlockLimits:
      data.resize(64);
      StoreBe(&data[6], static_cast<uint16_t>(geometry.physical_sector_bytes / block));
      if (granularity != 0) {
        StoreBe(&data[20], kMaxUnmapBlocks);
        StoreBe(&data[24], kMaxUnmapDescriptors);
        StoreBe(&data[28], granularity);
        StoreBe(&data[32], uint32_t{1} << 31);  // UGAVALID, from block 0 on
      }
      StoreBe(&data[36], kMaxWriteSameBlocks);
      break;
    case kBlockCharacteristics:
      data.resize(64);
      data[5] = 0x01;  // doesn't rotate
      break;
    case kLogicalBlockProvisioning:
      data.resize(8);
      if (granularity != 0) {
        data[5] = 0xE0;  // LBPU, LBPWS, LBPWS10
        data[6] = 0x02;  // thin
      }
      break;
    default:
      return InvalidField(command, 2);
  }
  StoreBe(&data[2], static_cast<uint16_t>(data.size() - 4));
  Return(command, data, allocation_length);
}

void LogicalUnit::ReadCapacity10(Command& command) {
  std::array<uint8_t, 8> data{};
  // All ones: more than fits, ask READ CAPACITY (16).
  const uint64_t last = std::min<uint64_t>(blocks() - 1, std::numeric_limits<uint32_t>::max());
  StoreBe(data.data(), static_cast<uint32_t>(last));
  StoreBe(&data[4], block_bytes());
  Return(command, data, data.size());
}

void LogicalUnit::ReadCapacity16(Command& command) {
  const disk::Geometry& geometry = disk_->geometry();
  std::array<uint8_t, 32> data{};
  StoreBe(data.data(), blocks() - 1);
  StoreBe(&data[8], block_bytes());
  uint8_t exponent = 0;
  while ((block_bytes() << (exponent + 1)) <= geometry.physical_sector_bytes) ++exponent;
  data[13] = exponent;
  if (geometry.discard_granularity_bytes != 0) data[14] = 0x80;  // LBPME; LBPRZ isn't promised
  Return(command, data, LoadBe<uint32_t>(&command.input_.cdb[10]));
}

// SBC-4, 5.6: what is provisioned is the host's affair, so all of it is "mapped or unknown".
void LogicalUnit::GetLbaStatus(Command& command) {
  const uint64_t lba = LoadBe<uint64_t>(&command.input_.cdb[2]);
  if (lba >= blocks()) return static_cast<void>(CheckRange(command, {.lba = lba, .blocks = 1}));
  std::array<uint8_t, 24> data{};
  StoreBe(data.data(), static_cast<uint32_t>(data.size() - 4));
  StoreBe(&data[8], lba);
  StoreBe(&data[16], static_cast<uint32_t>(
                         std::min<uint64_t>(blocks() - lba, std::numeric_limits<uint32_t>::max())));
  Return(command, data, LoadBe<uint32_t>(&command.input_.cdb[10]));
}

}  // namespace bothy::scsi
