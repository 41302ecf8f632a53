// READ CAPACITY and GET LBA STATUS (SBC-4, 5.9, 5.19, 5.20).
#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "scsi/limits.h"
#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint32_t kMaxBlocks = std::numeric_limits<uint32_t>::max();

// GET LBA STATUS.
constexpr size_t kStatusHeaderBytes = 8;
constexpr size_t kStatusDescriptorBytes = 16;
constexpr uint8_t kMapped = 0;
constexpr uint8_t kDeallocated = 1;

}  // namespace

void LogicalUnit::ReadCapacity10(Command& command) {
  std::array<uint8_t, 8> data{};
  // All ones: ask with READ CAPACITY (16).
  StoreBe(data.data(), static_cast<uint32_t>(std::min<uint64_t>(blocks() - 1, kMaxBlocks)));
  StoreBe(&data[4], block_bytes());
  Return(command, data, data.size());
}

void LogicalUnit::ReadCapacity16(Command& command) {
  std::array<uint8_t, 32> data{};
  StoreBe(data.data(), blocks() - 1);
  StoreBe(&data[8], block_bytes());
  const uint32_t per_physical =
      std::max<uint32_t>(disk_->geometry().physical_sector_bytes / block_bytes(), 1);
  data[13] = static_cast<uint8_t>(std::bit_width(per_physical) - 1);  // LBPPBE
  if (can_unmap()) {
    data[14] = 0x80;                              // LBPME
    if (unmapped_reads_zero()) data[14] |= 0x40;  // LBPRZ
  }
  Return(command, data, LoadBe<uint32_t>(command.cdb() + 10));
}

void LogicalUnit::GetLbaStatus(Command& command) {
  const uint64_t lba = LoadBe<uint64_t>(command.cdb() + 2);
  constexpr uint8_t kAllLbas = 0;
  if (command.cdb()[14] != kAllLbas) return InvalidField(command, 14);  // REPORT TYPE
  if (lba >= blocks()) return Check(command, kLbaOutOfRange);
  Launch(FindLbaStatus(command, lba, LoadBe<uint32_t>(command.cdb() + 10)));
}

Task<void> LogicalUnit::FindLbaStatus(Command& command, uint64_t lba, uint32_t allocation_length) {
  struct Run {
    uint64_t lba = 0;
    uint32_t blocks = 0;
    uint8_t status = kMapped;
  };
  // As many as there is room for, and at least one (5.9.2).
  const size_t room =
      std::clamp<size_t>(allocation_length / kStatusDescriptorBytes, 1, kMaxStatusDescriptors);
  std::vector<Run> runs;
  for (uint32_t lookups = 0; lookups < kMaxExtentLookups && lba < blocks(); ++lookups) {
    if (command.aborted()) co_return Good(command);
    const uint64_t offset = lba * block_bytes();
    // Not MapExtent: whoever maps may write, which is a change of the image. What only a parent may
    // have is kMapped, which stands for an unknown state, too (5.9).
    const absl::StatusOr<disk::Presence> presence = co_await disk_->FindPresence(offset);
    if (!presence.ok()) {
      co_return DiskFailed(command, disk::Operation::kRead, offset, presence.status());
    }
    const uint8_t status = presence->kind == disk::Presence::Kind::kZero ? kDeallocated : kMapped;
    uint64_t left = std::clamp<uint64_t>(presence->length / block_bytes(), 1, blocks() - lba);
    if (!runs.empty() && runs.back().status == status) {
      const auto part =
          static_cast<uint32_t>(std::min<uint64_t>(left, kMaxBlocks - runs.back().blocks));
      runs.back().blocks += part;
      lba += part;
      left -= part;
    }
    if (left == 0) continue;
    if (runs.size() == room) break;
    const auto part = static_cast<uint32_t>(std::min<uint64_t>(left, kMaxBlocks));
    runs.push_back({.lba = lba, .blocks = part, .status = status});
    lba += part;
  }
  std::vector<uint8_t> data(kStatusHeaderBytes + runs.size() * kStatusDescriptorBytes);
  StoreBe(data.data(), static_cast<uint32_t>(data.size() - 4));
  uint8_t* at = &data[kStatusHeaderBytes];
  for (const Run& run : runs) {
    StoreBe(at, run.lba);
    StoreBe(at + 8, run.blocks);
    at[12] = run.status;
    at += kStatusDescriptorBytes;
  }
  Return(command, data, allocation_length);
}

}  // namespace bothy::scsi
