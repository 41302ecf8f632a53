#include "chipset/serial/output_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "support/check.h"

namespace bothy::chipset {

OutputRing::OutputRing(size_t capacity) : capacity_(capacity), buffer_(new uint8_t[capacity]) {
  CHECK(std::has_single_bit(capacity));
}

void OutputRing::Append(std::span<const uint8_t> bytes) {
  if (bytes.size() > capacity_) {
    end_ += bytes.size() - capacity_;
    bytes = bytes.last(capacity_);
  }
  const size_t start = end_ & (capacity_ - 1);
  const size_t first = std::min(bytes.size(), capacity_ - start);
  if (first != 0) std::memcpy(&buffer_[start], bytes.data(), first);
  if (first != bytes.size()) std::memcpy(&buffer_[0], &bytes[first], bytes.size() - first);
  end_ += bytes.size();
}

size_t OutputRing::CopyFrom(uint64_t position, std::span<uint8_t> bytes) const {
  CHECK(position >= begin() && position <= end_);
  const size_t size = std::min<uint64_t>(bytes.size(), end_ - position);
  const size_t start = position & (capacity_ - 1);
  const size_t first = std::min(size, capacity_ - start);
  if (first != 0) std::memcpy(bytes.data(), &buffer_[start], first);
  if (first != size) std::memcpy(&bytes[first], &buffer_[0], size - first);
  return size;
}

}  // namespace bothy::chipset
