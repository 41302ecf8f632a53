// INQUIRY with its vital product data (SPC-5, 6.7, 7.7; SBC-4, 6.6), and REPORT LUNS.
#include "scsi/inquiry.h"

#include <algorithm>
#include <cstring>

#include "scsi/limits.h"
#include "scsi/logical_unit.h"
#include "scsi/unit_identity.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kSupportedPages = 0x00;
constexpr uint8_t kUnitSerialNumber = 0x80;
constexpr uint8_t kDeviceIdentification = 0x83;
constexpr uint8_t kExtendedInquiry = 0x86;
constexpr uint8_t kBlockLimits = 0xB0;
constexpr uint8_t kBlockCharacteristics = 0xB1;
constexpr uint8_t kProvisioning = 0xB2;
constexpr uint8_t kPages[] = {kSupportedPages,  kUnitSerialNumber, kDeviceIdentification,
                              kExtendedInquiry, kBlockLimits,      kBlockCharacteristics,
                              kProvisioning};

// Text, padded with blanks.
void PutText(std::span<uint8_t> field, std::string_view text) {
  std::fill(field.begin(), field.end(), uint8_t{' '});
  std::memcpy(field.data(), text.data(), std::min(field.size(), text.size()));
}

// SPC-5, 7.7.6. Sixty bits of a hash that drivers take as the world wide name, and the serial
// number in words.
void AppendDesignators(std::vector<uint8_t>& data, std::string_view serial) {
  constexpr uint8_t kBinary = 0x01;
  constexpr uint8_t kAscii = 0x02;
  constexpr uint8_t kT10VendorId = 0x01;
  constexpr uint8_t kNaa = 0x03;
  std::array<uint8_t, 12> naa = {kBinary, kNaa, 0, 8};
  StoreBe(&naa[4], LocallyAssignedName(serial));
  data.insert(data.end(), naa.begin(), naa.end());
  const size_t length = kVendor.size() + serial.size();
  data.insert(data.end(), {kAscii, kT10VendorId, 0, static_cast<uint8_t>(length)});
  data.insert(data.end(), kVendor.begin(), kVendor.end());
  data.insert(data.end(), serial.begin(), serial.end());
}

}  // namespace

std::array<uint8_t, kStandardInquiryBytes> StandardInquiry(
    std::optional<std::string_view> product) {
  std::array<uint8_t, kStandardInquiryBytes> data{};
  data[0] = product.has_value() ? 0x00 : 0x7F;
  data[2] = 0x07;  // SPC-5
  data[3] = 0x12;  // HISUP, response data format 2
  data[4] = static_cast<uint8_t>(data.size() - 5);
  data[7] = 0x02;  // CMDQUE
  PutText(std::span(data).subspan(8, 8), kVendor);
  PutText(std::span(data).subspan(16, kMaxProductBytes), product.value_or(""));
  PutText(std::span(data).subspan(32, 4), "1.0");
  // Version descriptors, of no version of the standards in particular.
  constexpr uint16_t kSam5 = 0x00A0;
  constexpr uint16_t kSpc5 = 0x05C0;
  constexpr uint16_t kSbc4 = 0x0600;
  StoreBe(&data[58], kSam5);
  StoreBe(&data[60], kSpc5);
  StoreBe(&data[62], kSbc4);
  return data;
}

std::optional<std::vector<uint8_t>> LunList(std::span<const uint16_t> luns, uint8_t select_report) {
  constexpr uint8_t kWellKnownOnly = 0x01;  // there are none
  constexpr uint8_t kAll = 0x02;
  if (select_report > kAll) return std::nullopt;
  if (select_report == kWellKnownOnly) luns = {};
  std::vector<uint8_t> data(8 + 8 * luns.size());
  StoreBe(data.data(), static_cast<uint32_t>(8 * luns.size()));
  for (size_t i = 0; i < luns.size(); ++i) {
    StoreBe(&data[8 + 8 * i], luns[i]);  // peripheral device addressing (SAM-5, 4.7.7.2)
  }
  return data;
}

void LogicalUnit::Inquiry(Command& command) {
  const uint8_t* cdb = command.cdb();
  const uint16_t allocation_length = LoadBe<uint16_t>(cdb + 3);
  const bool vital = (cdb[1] & 0x01) != 0;
  const uint8_t page = cdb[2];
  if (!vital) {
    if (page != 0) return InvalidField(command, 2);
    return Return(command, StandardInquiry(options_.product), allocation_length);
  }
  if (std::find(std::begin(kPages), std::end(kPages), page) == std::end(kPages)) {
    return InvalidField(command, 2);
  }
  Return(command, VitalProductData(page), allocation_length);
}

std::vector<uint8_t> LogicalUnit::VitalProductData(uint8_t page) const {
  const disk::Geometry& geometry = disk_->geometry();
  constexpr size_t kHeaderBytes = 4;
  constexpr size_t kLongPageBytes = 64;
  constexpr size_t kMaxPageBytes = 128;
  std::vector<uint8_t> data;
  data.reserve(kMaxPageBytes);
  data.resize(kHeaderBytes);
  data[1] = page;
  switch (page) {
    case kSupportedPages:
      data.insert(data.end(), std::begin(kPages), std::end(kPages));
      break;
    case kUnitSerialNumber:
      data.insert(data.end(), options_.serial.begin(), options_.serial.end());
      break;
    case kDeviceIdentification:
      AppendDesignators(data, options_.serial);
      break;
    case kExtendedInquiry:
      data.resize(kLongPageBytes);
      data[5] = 0x07;  // HEADSUP, ORDSUP, SIMPSUP
      data[6] = 0x01;  // V_SUP: there is a volatile cache
      break;
    case kBlockLimits:
      data.resize(kLongPageBytes);
      data[4] = 0x01;  // WSNZ
      data[5] = MaxCompareAndWriteBlocks(block_bytes());
      StoreBe(&data[6], static_cast<uint16_t>(
                            std::max<uint32_t>(geometry.physical_sector_bytes / block_bytes(), 1)));
      StoreBe(&data[8], static_cast<uint32_t>(kMaxTransferBytes / block_bytes()));
      if (can_unmap()) {
        StoreBe(&data[20], static_cast<uint32_t>(kMaxUnmapBytes / block_bytes()));
        StoreBe(&data[24], kMaxUnmapDescriptors);
        StoreBe(&data[28],
                std::max<uint32_t>(geometry.discard_granularity_bytes / block_bytes(), 1));
        data[32] = 0x80;  // UGAVALID, with an alignment of 0
      }
      StoreBe(&data[36], kMaxWriteSameBytes / block_bytes());
      break;
    case kBlockCharacteristics:
      data.resize(kLongPageBytes);
      StoreBe(&data[4], uint16_t{1});  // doesn't rotate
      break;
    case kProvisioning:
      data.resize(8);
      if (can_unmap()) {
        data[5] = 0xE0;                              // LBPU, LBPWS, LBPWS10
        if (unmapped_reads_zero()) data[5] |= 0x04;  // LBPRZ
        data[6] = 0x02;                              // thin
      }
      break;
    default:
      break;
  }
  StoreBe(&data[2], static_cast<uint16_t>(data.size() - kHeaderBytes));
  return data;
}

void LogicalUnit::ReportLuns(Command& command) {
  const std::vector<uint16_t> luns = host_.Inventory();
  const std::optional<std::vector<uint8_t>> data = LunList(luns, command.cdb()[2]);
  if (!data.has_value()) return InvalidField(command, 2);
  host_.OnInventoryReported();
  Return(command, *data, LoadBe<uint32_t>(command.cdb() + 6));
}

}  // namespace bothy::scsi
