#include "boot/huge_page_backing.h"

#include <algorithm>

namespace bothy::boot {
namespace {

// Large enough for what each request to the host costs by itself, small enough to share. Pieces
// begin at multiples of it, so that no huge page is cut in two.
constexpr uint64_t kPieceBytes = 8 * memory::kMiB;

uint64_t Overlap(const memory::AddressRange& a, const memory::AddressRange& b) {
  const uint64_t begin = std::max(a.base, b.base);
  const uint64_t end = std::min(a.end(), b.end());
  return begin < end ? end - begin : 0;
}

}  // namespace

HugePageBacking::HugePageBacking(memory::GuestMemory& memory,
                                 const std::vector<memory::AddressRange>& ranges)
    : memory_(memory) {
  for (const memory::AddressRange& range : ranges) {
    for (uint64_t begin = range.base; begin < range.end();) {
      const uint64_t end = std::min(range.end(), (begin / kPieceBytes + 1) * kPieceBytes);
      pieces_.push_back({.range = {begin, end - begin}});
      begin = end;
    }
  }
}

bool HugePageBacking::Back(uint64_t gpa, uint64_t size) {
  const memory::AddressRange wanted{gpa, size};
  std::unique_lock lock(mutex_);
  for (Piece& piece : pieces_) {
    if (piece.state == State::kNew && piece.range.Overlaps(wanted)) Back(piece, lock);
  }
  const auto is_backed = [&] {
    return std::none_of(pieces_.begin(), pieces_.end(), [&](const Piece& piece) {
      return piece.state != State::kBacked && piece.range.Overlaps(wanted);
    });
  };
  while (!is_backed()) {
    const auto other = std::find_if(pieces_.begin(), pieces_.end(),
                                    [](const Piece& piece) { return piece.state == State::kNew; });
    if (other != pieces_.end()) {
      Back(*other, lock);
    } else {
      backed_.wait(lock);
    }
  }
  uint64_t covered = 0;
  for (const Piece& piece : pieces_) covered += Overlap(piece.range, wanted);
  return covered == size;
}

void HugePageBacking::BackAll(ParallelWork& work) {
  for (Piece& piece : pieces_) {
    work.SubmitForIdle([this, &piece] {
      std::unique_lock lock(mutex_);
      if (piece.state == State::kNew) Back(piece, lock);
      return absl::OkStatus();
    });
  }
}

void HugePageBacking::Back(Piece& piece, std::unique_lock<std::mutex>& lock) {
  piece.state = State::kTaken;
  lock.unlock();
  memory_.BackWithHugePages(piece.range.base, piece.range.size);
  lock.lock();
  piece.state = State::kBacked;
  backed_.notify_all();
}

}  // namespace bothy::boot
