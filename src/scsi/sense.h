// Sense data: why a command failed (SPC-5, 4.4).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace bothy::scsi {

// SPC-5, table 48.
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

// Key, additional sense code and its qualifier (SPC-5, annex F.2).
struct Condition {
  SenseKey key = SenseKey::kNoSense;
  uint8_t asc = 0;
  uint8_t ascq = 0;
  bool operator==(const Condition&) const = default;
};

inline constexpr Condition kNoCondition = {SenseKey::kNoSense, 0x00, 0x00};
inline constexpr Condition kStopped = {SenseKey::kNotReady, 0x04, 0x02};
inline constexpr Condition kMediumNotPresent = {SenseKey::kNotReady, 0x3A, 0x00};
inline constexpr Condition kReadError = {SenseKey::kMediumError, 0x11, 0x00};
inline constexpr Condition kWriteError = {SenseKey::kMediumError, 0x0C, 0x00};
inline constexpr Condition kInternalTargetFailure = {SenseKey::kHardwareError, 0x44, 0x00};
inline constexpr Condition kParameterListLengthError = {SenseKey::kIllegalRequest, 0x1A, 0x00};
inline constexpr Condition kInvalidOpcode = {SenseKey::kIllegalRequest, 0x20, 0x00};
inline constexpr Condition kLbaOutOfRange = {SenseKey::kIllegalRequest, 0x21, 0x00};
inline constexpr Condition kInvalidFieldInCdb = {SenseKey::kIllegalRequest, 0x24, 0x00};
inline constexpr Condition kUnitNotSupported = {SenseKey::kIllegalRequest, 0x25, 0x00};
inline constexpr Condition kInvalidFieldInParameters = {SenseKey::kIllegalRequest, 0x26, 0x00};
inline constexpr Condition kSavingNotSupported = {SenseKey::kIllegalRequest, 0x39, 0x00};
inline constexpr Condition kMediumChanged = {SenseKey::kUnitAttention, 0x28, 0x00};
inline constexpr Condition kPowerOn = {SenseKey::kUnitAttention, 0x29, 0x00};
inline constexpr Condition kUnitReset = {SenseKey::kUnitAttention, 0x29, 0x03};
inline constexpr Condition kNexusLoss = {SenseKey::kUnitAttention, 0x29, 0x07};
inline constexpr Condition kCapacityChanged = {SenseKey::kUnitAttention, 0x2A, 0x09};
inline constexpr Condition kInquiryDataChanged = {SenseKey::kUnitAttention, 0x3F, 0x03};
inline constexpr Condition kReportedLunsChanged = {SenseKey::kUnitAttention, 0x3F, 0x0E};
inline constexpr Condition kWriteProtected = {SenseKey::kDataProtect, 0x27, 0x00};
inline constexpr Condition kSpaceAllocationFailed = {SenseKey::kDataProtect, 0x27, 0x07};
inline constexpr Condition kCommandAborted = {SenseKey::kAbortedCommand, 0x00, 0x00};
inline constexpr Condition kMiscompareDuringVerify = {SenseKey::kMiscompare, 0x1D, 0x00};

// Which byte, and where one bit or field of it is at fault its most significant bit, of the CDB or
// of the parameter list (SPC-5, 4.4.2.4.2).
struct FieldPointer {
  enum class Place : uint8_t { kCdb, kParameters };
  Place place = Place::kCdb;
  uint16_t byte = 0;
  std::optional<uint8_t> bit = {};
  bool operator==(const FieldPointer&) const = default;
};

struct SenseData {
  Condition condition = {};
  std::optional<FieldPointer> field = {};
  // The block at fault, or the offset of the first byte that differs.
  std::optional<uint64_t> information = {};
};

// Sense data as it is sent.
class EncodedSense {
 public:
  enum class Format : uint8_t { kFixed, kDescriptor };

  void clear() { size_ = 0; }
  // The fixed format has 32 bits for the information and leaves a larger one out.
  void Encode(const SenseData& sense, Format format);
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {bytes_.data(), size_}; }

 private:
  void EncodeFixed(const SenseData& sense);
  void EncodeDescriptors(const SenseData& sense);

  // The header, and descriptors of 12 bytes (information) and 8 (sense key specific).
  std::array<uint8_t, 8 + 12 + 8> bytes_{};
  size_t size_ = 0;
};

}  // namespace bothy::scsi
