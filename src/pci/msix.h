// MSI-X (PCI Express Base 5.0, 6.1.4 and 7.7.2): the vectors of a function, their table and their
// pending bits.
//
// The table and the pending bits are memory behind a BAR; the enable and the function mask are in
// the capability, which Endpoint keeps. A vector sends its message when nothing masks it, else it
// stays pending and sends when the mask goes. While MSI-X is disabled, signals are lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "chipset/bus.h"
#include "hypervisor/interrupts.h"
#include "hypervisor/vm.h"

namespace bothy::pci {

inline constexpr uint16_t kMaxMsixVectors = 2048;
inline constexpr uint64_t kMsixEntryBytes = 16;

class MsixVector {
 public:
  explicit MsixVector(std::unique_ptr<hypervisor::MsiRoute> route) : route_(std::move(route)) {
    route_->Hold(true);  // masked, as after power-on
  }
  MsixVector(const MsixVector&) = delete;
  MsixVector& operator=(const MsixVector&) = delete;

  // Interrupts the guest. Any thread, no lock, one system call at most.
  void Signal();
  // An eventfd that does the same when it is written, but isn't seen by pending(). Owned by the
  // vector. Any thread.
  absl::StatusOr<int> EventFd() { return route_->EventFd(); }
  [[nodiscard]] bool pending() const {
    return (state_.load(std::memory_order_acquire) & kPending) != 0;
  }

 private:
  friend class Msix;
  static constexpr uint32_t kEnabled = 1U << 0;  // of the function: signals aren't lost
  static constexpr uint32_t kUnmasked = 1U << 1;
  static constexpr uint32_t kPending = 1U << 2;

  // Only one thread at a time.
  void SetState(bool enabled, bool unmasked);
  void SendIfPending();

  const std::unique_ptr<hypervisor::MsiRoute> route_;
  std::atomic<uint32_t> state_{0};
};

class Msix {
 public:
  // `count` vectors, 1..kMaxMsixVectors.
  Msix(hypervisor::Vm& vm, uint16_t count);

  [[nodiscard]] uint16_t count() const { return static_cast<uint16_t>(vectors_.size()); }
  // `index` is below count().
  [[nodiscard]] MsixVector& vector(uint16_t index) { return *vectors_[index]; }

  // The two memory structures, for ranges of table_bytes() and pending_bytes().
  [[nodiscard]] chipset::IoDevice& table() { return table_; }
  [[nodiscard]] chipset::IoDevice& pending_bits() { return pending_bits_; }
  [[nodiscard]] uint64_t table_bytes() const { return kMsixEntryBytes * vectors_.size(); }
  [[nodiscard]] uint64_t pending_bytes() const { return (vectors_.size() + 63) / 64 * 8; }

  // What the capability and the command register say: MSI-X is enabled; the function may send (is
  // a bus master, and not masked as a whole). Thread-safe.
  void SetFunction(bool enabled, bool may_send);
  // Back to power-on: disabled, every vector masked, nothing pending. Thread-safe.
  void Reset();

 private:
  struct Entry {
    hypervisor::MsiMessage message;
    uint32_t control = kMasked;
  };
  static constexpr uint32_t kMasked = 1;

  class Table final : public chipset::IoDevice {
   public:
    explicit Table(Msix& msix) : msix_(msix) {}
    void Read(uint64_t offset, std::span<uint8_t> data) override;
    void Write(uint64_t offset, std::span<const uint8_t> data) override;

   private:
    Msix& msix_;
  };
  class PendingBits final : public chipset::IoDevice {
   public:
    explicit PendingBits(Msix& msix) : msix_(msix) {}
    void Read(uint64_t offset, std::span<uint8_t> data) override;
    void Write(uint64_t, std::span<const uint8_t>) override {}

   private:
    Msix& msix_;
  };

  [[nodiscard]] uint32_t ReadWord(size_t entry, size_t word) const;  // holds mutex_
  void WriteWord(size_t entry, size_t word, uint32_t value);         // holds mutex_
  void Apply(size_t entry);                                          // holds mutex_

  Table table_;
  PendingBits pending_bits_;
  std::vector<std::unique_ptr<MsixVector>> vectors_;
  std::mutex mutex_;
  std::vector<Entry> entries_;  // guarded by mutex_
  bool enabled_ = false;        // guarded by mutex_
  bool may_send_ = false;       // guarded by mutex_
};

}  // namespace bothy::pci
