#include "boot/huge_page_backing.h"

#include <algorithm>

namespace bothy::boot {
namespace {

// Large enough for what each request to the host costs by itself, small enough to share. Pieces
// begin at multiples of it, so that no huge page is cut in two.
constexpr uint64_t kPieceBytes = 8 * memory::kMiB;

}  // namespace

HugePageBacking::HugePageBacking(memory::GuestMemory& memory,
                                 const std::vector<memory::AddressRange>& ranges)
    : memory_(memory) {
  for (const memory::AddressRange& range : ranges) {
    for (uint64_t begin = range.base; begin < range.end();) {
      const uint64_t end = std::min(range.end(), (begin / kPieceBytes + 1) * kPieceBytes);
      pieces_.push_back(std::make_unique<Piece>(memory::AddressRange{begin, end - begin}));
      begin = end;
    }
  }
}

void HugePageBacking::Back(uint64_t gpa, uint64_t size) {
  for (const auto& piece : pieces_) {
    if (piece->range.Overlaps({gpa, size})) Back(*piece);
  }
}

void HugePageBacking::BackRest(ParallelWork& work) {
  for (const auto& piece : pieces_) {
    work.Submit([this, &piece = *piece] {
      Back(piece);
      return absl::OkStatus();
    });
  }
}

void HugePageBacking::Back(Piece& piece) {
  std::call_once(piece.backed,
                 [&] { memory_.BackWithHugePages(piece.range.base, piece.range.size); });
}

}  // namespace bothy::boot
