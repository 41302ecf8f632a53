// Standard INQUIRY data (SPC-5, 6.7.2), which also places without a unit answer.
#pragma once

#include <array>
#include <cstdint>

namespace bothy::scsi {

[[nodiscard]] std::array<uint8_t, 36> StandardInquiry(bool present);

}  // namespace bothy::scsi
