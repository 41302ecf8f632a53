// Answers that don't depend on a unit's being there.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace bothy::scsi {

inline constexpr size_t kStandardInquiryBytes = 96;
// SPC-5, 6.7.2. Without a product: of a place where no unit is, nor could be (peripheral qualifier
// 011b, device type 1Fh).
[[nodiscard]] std::array<uint8_t, kStandardInquiryBytes> StandardInquiry(
    std::optional<std::string_view> product);

// REPORT LUNS' parameter data (SPC-5, 6.33) for its SELECT REPORT field; nothing for a field that
// isn't supported.
[[nodiscard]] std::optional<std::vector<uint8_t>> LunList(std::span<const uint16_t> luns,
                                                          uint8_t select_report);

}  // namespace bothy::scsi
