#include "chipset/bus.h"

#include <algorithm>
#include <bit>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::chipset {
namespace {

std::string Describe(uint64_t base, uint64_t last) {
  return absl::StrCat("[0x", absl::Hex(base), ", 0x", absl::Hex(last), "]");
}

// The largest access a device may see that `left` bytes allow.
size_t PieceSize(size_t left) { return std::min<size_t>(std::bit_floor(left), 8); }

bool IsOneAccess(size_t size) { return size != 0 && PieceSize(size) == size; }

}  // namespace

class IoBus::Lookup {
 public:
  Lookup(const IoBus& bus, uint64_t address, uint64_t size) {
    const uint64_t last = address + (size - 1);
    if (last < address) return;
    std::shared_lock lock(bus.mutex_);
    auto after = std::upper_bound(
        bus.ranges_.begin(), bus.ranges_.end(), address,
        [](uint64_t value, const std::unique_ptr<Range>& range) { return value < range->base; });
    if (after == bus.ranges_.begin()) return;
    // Ranges nest or are disjoint, so whatever holds `address` is this range or one around it, and
    // the innermost comes first.
    Range* range = std::prev(after)->get();
    while (range != nullptr && range->last < last) range = range->parent;
    if (range == nullptr) return;
    range->users.fetch_add(1, std::memory_order_relaxed);
    range_ = range;
  }
  Lookup(const Lookup&) = delete;
  Lookup& operator=(const Lookup&) = delete;
  ~Lookup() {
    // The last touch: Unregister frees the range once it sees zero.
    if (range_ != nullptr) range_->users.fetch_sub(1, std::memory_order_release);
  }

  // Null when nothing answers.
  [[nodiscard]] Range* range() const { return range_; }

 private:
  Range* range_ = nullptr;
};

absl::Status IoBus::Register(uint64_t base, uint64_t size, IoDevice& device) {
  if (size == 0) return absl::InvalidArgumentError("bus: empty range");
  const uint64_t last = base + (size - 1);
  if (last < base) {
    return absl::InvalidArgumentError(absl::StrCat("bus: 0x", absl::Hex(size), " bytes at 0x",
                                                   absl::Hex(base),
                                                   " run past the end of the address space"));
  }
  auto added = std::make_unique<Range>();
  added->base = base;
  added->last = last;
  added->device = &device;

  std::unique_lock lock(mutex_);
  for (const auto& other : ranges_) {
    if (last < other->base || other->last < base) continue;
    const bool equal = base == other->base && last == other->last;
    const bool inside = base >= other->base && last <= other->last;
    const bool around = base <= other->base && last >= other->last;
    if (equal || !(inside || around)) {
      return absl::AlreadyExistsError(absl::StrCat("bus: ", Describe(base, last), " overlaps ",
                                                   Describe(other->base, other->last),
                                                   ", which is registered"));
    }
  }
  const auto place =
      std::find_if(ranges_.begin(), ranges_.end(), [&](const std::unique_ptr<Range>& range) {
        return range->base > base || (range->base == base && range->last < last);
      });
  ranges_.insert(place, std::move(added));
  RelinkParents();
  return absl::OkStatus();
}

absl::Status IoBus::Unregister(uint64_t base, uint64_t size) {
  std::unique_ptr<Range> removed;
  {
    std::unique_lock lock(mutex_);
    const auto found =
        std::find_if(ranges_.begin(), ranges_.end(), [&](const std::unique_ptr<Range>& range) {
          return range->base == base && range->last - range->base == size - 1;
        });
    if (found == ranges_.end()) {
      return absl::NotFoundError(absl::StrCat("bus: 0x", absl::Hex(size), " bytes at 0x",
                                              absl::Hex(base), " aren't registered"));
    }
    removed = std::move(*found);
    ranges_.erase(found);
    RelinkParents();
  }
  // Devices don't block, so this is short.
  while (removed->users.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  return absl::OkStatus();
}

void IoBus::RelinkParents() {
  // The ranges that hold the place the walk has reached, outermost first.
  std::vector<Range*> around;
  for (const auto& range : ranges_) {
    while (!around.empty() && around.back()->last < range->base) around.pop_back();
    range->parent = around.empty() ? nullptr : around.back();
    around.push_back(range.get());
  }
}

void IoBus::Read(uint64_t address, std::span<uint8_t> data) const {
  if (!IsOneAccess(data.size())) [[unlikely]] {
    while (!data.empty()) {
      const size_t piece = PieceSize(data.size());
      Read(address, data.first(piece));
      address += piece;
      data = data.subspan(piece);
    }
    return;
  }
  const Lookup lookup(*this, address, data.size());
  if (lookup.range() == nullptr) {
    std::fill(data.begin(), data.end(), uint8_t{0xFF});
    return;
  }
  lookup.range()->device->Read(address - lookup.range()->base, data);
}

void IoBus::Write(uint64_t address, std::span<const uint8_t> data) const {
  if (!IsOneAccess(data.size())) [[unlikely]] {
    while (!data.empty()) {
      const size_t piece = PieceSize(data.size());
      Write(address, data.first(piece));
      address += piece;
      data = data.subspan(piece);
    }
    return;
  }
  const Lookup lookup(*this, address, data.size());
  if (lookup.range() == nullptr) return;
  lookup.range()->device->Write(address - lookup.range()->base, data);
}

}  // namespace bothy::chipset
