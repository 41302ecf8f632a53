#include "disk/vhdx/bat.h"

#include <bit>

namespace bothy::disk::vhdx {

BatLayout::BatLayout(uint64_t offset, const DiskParameters& parameters) : offset_(offset) {
  const uint64_t chunk_bytes = kSectorsPerBitmapBlock * parameters.logical_sector_bytes;
  chunk_shift_ = static_cast<uint32_t>(std::countr_zero(chunk_bytes / parameters.block_bytes));
  payload_blocks_ = RoundUp(parameters.size_bytes, parameters.block_bytes) / parameters.block_bytes;
  chunks_ = RoundUp(payload_blocks_, chunk_ratio()) / chunk_ratio();
  entries_ = parameters.has_parent ? chunks_ * (chunk_ratio() + 1)
                                   : payload_blocks_ + (payload_blocks_ - 1) / chunk_ratio();
}

}  // namespace bothy::disk::vhdx
