#include "pci/msix.h"

#include <algorithm>

#include "support/check.h"
#include "support/endian.h"

namespace bothy::pci {
namespace {

constexpr size_t kWordBytes = sizeof(uint32_t);
constexpr size_t kWordsPerEntry = kMsixEntryBytes / kWordBytes;

// Words of a table entry.
constexpr size_t kAddressLow = 0;
constexpr size_t kAddressHigh = 1;
constexpr size_t kData = 2;
constexpr size_t kControl = 3;

constexpr uint64_t kAddressLowBits = 0xFFFF'FFFC;  // messages are whole double words

}  // namespace

void MsixVector::Signal() {
  const uint32_t state = state_.load(std::memory_order_acquire);
  if ((state & kUnmasked) != 0) {
    route_->Signal();
    return;
  }
  if ((state & kEnabled) == 0) return;
  // The mask may go between the two: then whoever took it away has seen the pending bit, or it is
  // seen here that the mask is gone. Only one of the two takes the bit back.
  if ((state_.fetch_or(kPending, std::memory_order_acq_rel) & kUnmasked) != 0) SendIfPending();
}

void MsixVector::SetState(bool enabled, bool unmasked) {
  const uint32_t set = (enabled ? kEnabled : 0) | (unmasked ? kUnmasked : 0);
  // Nothing stays pending in a function whose MSI-X is disabled.
  const uint32_t clear = (~set & (kEnabled | kUnmasked)) | (enabled ? 0 : kPending);
  state_.fetch_and(~clear, std::memory_order_acq_rel);
  if (set != 0) state_.fetch_or(set, std::memory_order_acq_rel);
  route_->Hold(!unmasked);
  if (unmasked) SendIfPending();
}

void MsixVector::SendIfPending() {
  if ((state_.fetch_and(~kPending, std::memory_order_acq_rel) & kPending) != 0) route_->Signal();
}

Msix::Msix(hypervisor::Vm& vm, uint16_t count)
    : table_(*this), pending_bits_(*this), entries_(count) {
  CHECK(count >= 1 && count <= kMaxMsixVectors);
  vectors_.reserve(count);
  for (uint16_t i = 0; i < count; ++i) {
    vectors_.push_back(std::make_unique<MsixVector>(vm.CreateMsiRoute()));
  }
}

void Msix::SetFunction(bool enabled, bool may_send) {
  const std::lock_guard lock(mutex_);
  if (enabled == enabled_ && may_send == may_send_) return;
  enabled_ = enabled;
  may_send_ = may_send;
  for (size_t i = 0; i < entries_.size(); ++i) Apply(i);
}

void Msix::Reset() {
  const std::lock_guard lock(mutex_);
  enabled_ = false;
  may_send_ = false;
  for (size_t i = 0; i < entries_.size(); ++i) {
    entries_[i] = {};
    Apply(i);
  }
}

void Msix::Apply(size_t entry) {
  const bool unmasked = enabled_ && may_send_ && (entries_[entry].control & kMasked) == 0;
  if (unmasked) vectors_[entry]->route_->Update(entries_[entry].message);
  vectors_[entry]->SetState(enabled_, unmasked);
}

uint32_t Msix::ReadWord(size_t entry, size_t word) const {
  const Entry& from = entries_[entry];
  switch (word) {
    case kAddressLow:
      return static_cast<uint32_t>(from.message.address);
    case kAddressHigh:
      return static_cast<uint32_t>(from.message.address >> 32);
    case kData:
      return from.message.data;
    default:
      return from.control;
  }
}

void Msix::WriteWord(size_t entry, size_t word, uint32_t value) {
  Entry& to = entries_[entry];
  switch (word) {
    case kAddressLow:
      to.message.address =
          (to.message.address & ~uint64_t{0xFFFF'FFFF}) | (value & kAddressLowBits);
      break;
    case kAddressHigh:
      to.message.address = uint64_t{value} << 32 | (to.message.address & 0xFFFF'FFFF);
      break;
    case kData:
      to.message.data = value;
      break;
    case kControl:
      to.control = value & kMasked;
      break;
  }
  Apply(entry);
}

void Msix::Table::Read(uint64_t offset, std::span<uint8_t> data) {
  const std::lock_guard lock(msix_.mutex_);
  for (size_t i = 0; i < data.size(); ++i) {
    const uint64_t at = offset + i;
    const uint32_t word = msix_.ReadWord(at / kMsixEntryBytes, at / kWordBytes % kWordsPerEntry);
    data[i] = static_cast<uint8_t>(word >> at % kWordBytes * 8);
  }
}

// Only whole double words, one or two, are defined for the guest (7.7.2); the rest is ignored.
void Msix::Table::Write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset % kWordBytes != 0 || data.size() % kWordBytes != 0) return;
  const std::lock_guard lock(msix_.mutex_);
  for (size_t done = 0; done < data.size(); done += kWordBytes) {
    const uint64_t at = offset + done;
    msix_.WriteWord(at / kMsixEntryBytes, at / kWordBytes % kWordsPerEntry,
                    LoadLe<uint32_t>(data.data() + done));
  }
}

void Msix::PendingBits::Read(uint64_t offset, std::span<uint8_t> data) {
  std::fill(data.begin(), data.end(), uint8_t{0});
  for (size_t i = 0; i < data.size() * 8; ++i) {
    const uint64_t vector = offset * 8 + i;
    if (vector < msix_.vectors_.size() && msix_.vectors_[vector]->pending()) {
      data[i / 8] = static_cast<uint8_t>(data[i / 8] | 1U << i % 8);
    }
  }
}

}  // namespace bothy::pci
