// CRC-32C (Castagnoli, polynomial 0x1EDC6F41), the checksum of every structure of VHDX.
#pragma once

#include <cstdint>
#include <span>

namespace bothy::disk::vhdx {

// The checksum of `bytes`; `so_far` is that of what comes before them. Uses SSE4.2 where the CPU
// has it.
[[nodiscard]] uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t so_far = 0);

// Table-driven, for CPUs without SSE4.2. The same result.
[[nodiscard]] uint32_t Crc32cPortable(std::span<const uint8_t> bytes, uint32_t so_far = 0);

// The checksum of a structure whose own Checksum field, four bytes at `field_offset`, counts as
// zero.
[[nodiscard]] uint32_t Crc32cWithoutField(std::span<const uint8_t> bytes, size_t field_offset);

}  // namespace bothy::disk::vhdx
