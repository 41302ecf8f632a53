// Sense data: why a command failed (SPC-5, 4.4), in fixed format.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>

#include "support/endian.h"

namespace bothy::scsi {

// SPC-5, table 50.
enum class SenseKey : uint8_t {
  kNoSense = 0x0,
  kNotReady = 0x2,
  kMediumError = 0x3,
  kHardwareError = 0x4,
  kIllegalRequest = 0x5,
  kUnitAttention = 0x6,
  kDataProtect = 0x7,
  kAbortedCommand = 0xB,
  kMiscompare = 0xE,
};

// A condition: key, additional sense code and its qualifier (SPC-5, table 51 and annex F).
struct Condition {
  SenseKey key = SenseKey::kNoSense;
  uint8_t asc = 0;
  uint8_t ascq = 0;
  bool operator==(const Condition&) const = default;
};

inline constexpr Condition kInvalidOpcode = {SenseKey::kIllegalRequest, 0x20, 0x00};
inline constexpr Condition kLbaOutOfRange = {SenseKey::kIllegalRequest, 0x21, 0x00};
inline constexpr Condition kInvalidFieldInCdb = {SenseKey::kIllegalRequest, 0x24, 0x00};
inline constexpr Condition kUnitNotSupported = {SenseKey::kIllegalRequest, 0x25, 0x00};
inline constexpr Condition kParameterListLength = {SenseKey::kIllegalRequest, 0x1A, 0x00};
inline constexpr Condition kInvalidFieldInParameters = {SenseKey::kIllegalRequest, 0x26, 0x00};
inline constexpr Condition kSavingNotSupported = {SenseKey::kIllegalRequest, 0x39, 0x00};
inline constexpr Condition kWriteProtected = {SenseKey::kDataProtect, 0x27, 0x00};
inline constexpr Condition kSpaceAllocationFailed = {SenseKey::kDataProtect, 0x27, 0x07};
inline constexpr Condition kReadError = {SenseKey::kMediumError, 0x11, 0x00};
inline constexpr Condition kWriteError = {SenseKey::kMediumError, 0x0C, 0x00};
inline constexpr Condition kInternalFailure = {SenseKey::kHardwareError, 0x44, 0x00};
inline constexpr Condition kMiscompareDuringVerify = {SenseKey::kMiscompare, 0x1D, 0x00};
inline constexpr Condition kStopped = {SenseKey::kNotReady, 0x04, 0x02};
inline constexpr Condition kPowerOn = {SenseKey::kUnitAttention, 0x29, 0x00};
inline constexpr Condition kUnitReset = {SenseKey::kUnitAttention, 0x29, 0x03};
inline constexpr Condition kMediumChanged = {SenseKey::kUnitAttention, 0x28, 0x00};
inline constexpr Condition kCapacityChanged = {SenseKey::kUnitAttention, 0x2A, 0x09};

class Sense {
 public:
  void clear() { size_ = 0; }
  void Set(const Condition& condition) {
    bytes_ = {};
    bytes_[0] = 0x70;  // current, fixed format
    bytes_[2] = static_cast<uint8_t>(condition.key);
    bytes_[7] = kBytes - 8;
    bytes_[12] = condition.asc;
    bytes_[13] = condition.ascq;
    size_ = kBytes;
  }
  // Which byte of the CDB or of the parameters is at fault (SPC-5, 4.4.2.4.2).
  void PointAt(uint16_t byte, bool in_cdb) {
    bytes_[15] = static_cast<uint8_t>(0x80 | (in_cdb ? 0x40 : 0));
    StoreBe(&bytes_[16], byte);
  }
  // The block at fault, where the format has room for it.
  void SetInformation(uint64_t lba) {
    if (lba > std::numeric_limits<uint32_t>::max()) return;
    bytes_[0] |= 0x80;
    StoreBe(&bytes_[3], static_cast<uint32_t>(lba));
  }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {bytes_.data(), size_}; }

 private:
  static constexpr uint8_t kBytes = 18;
  std::array<uint8_t, kBytes> bytes_{};
  size_t size_ = 0;
};

}  // namespace bothy::scsi
