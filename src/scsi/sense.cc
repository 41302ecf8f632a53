#include "scsi/sense.h"

#include <limits>

#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr size_t kFixedBytes = 18;
constexpr size_t kDescriptorHeaderBytes = 8;

void PutFieldPointer(uint8_t* at, const FieldPointer& field) {
  constexpr uint8_t kValid = 0x80;
  constexpr uint8_t kCommandData = 0x40;
  constexpr uint8_t kBitPointerValid = 0x08;
  at[0] = kValid;
  if (field.place == FieldPointer::Place::kCdb) at[0] |= kCommandData;
  if (field.bit.has_value()) at[0] |= kBitPointerValid | *field.bit;
  StoreBe(at + 1, field.byte);
}

}  // namespace

void EncodedSense::Encode(const SenseData& sense, Format format) {
  bytes_ = {};
  if (format == Format::kFixed) {
    EncodeFixed(sense);
  } else {
    EncodeDescriptors(sense);
  }
}

// SPC-5, 4.4.3.
void EncodedSense::EncodeFixed(const SenseData& sense) {
  bytes_[0] = 0x70;  // current
  if (sense.information <= std::numeric_limits<uint32_t>::max() && sense.information.has_value()) {
    bytes_[0] |= 0x80;
    StoreBe(&bytes_[3], static_cast<uint32_t>(*sense.information));
  }
  bytes_[2] = static_cast<uint8_t>(sense.condition.key);
  bytes_[7] = kFixedBytes - 8;
  bytes_[12] = sense.condition.asc;
  bytes_[13] = sense.condition.ascq;
  if (sense.field.has_value()) PutFieldPointer(&bytes_[15], *sense.field);
  size_ = kFixedBytes;
}

// SPC-5, 4.4.2.
void EncodedSense::EncodeDescriptors(const SenseData& sense) {
  bytes_[0] = 0x72;  // current
  bytes_[1] = static_cast<uint8_t>(sense.condition.key);
  bytes_[2] = sense.condition.asc;
  bytes_[3] = sense.condition.ascq;
  size_ = kDescriptorHeaderBytes;
  if (sense.information.has_value()) {
    uint8_t* const at = &bytes_[size_];
    at[0] = 0x00;
    at[1] = 0x0A;
    at[2] = 0x80;
    StoreBe(at + 4, *sense.information);
    size_ += 12;
  }
  if (sense.field.has_value()) {
    uint8_t* const at = &bytes_[size_];
    at[0] = 0x02;
    at[1] = 0x06;
    PutFieldPointer(at + 4, *sense.field);
    size_ += 8;
  }
  bytes_[7] = static_cast<uint8_t>(size_ - kDescriptorHeaderBytes);
}

}  // namespace bothy::scsi
