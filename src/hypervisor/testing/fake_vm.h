// FakeVm: a Vm without a hypervisor, for tests of devices: records messages, doorbells and slots.
//
// It has no vCPUs and no lines. Thread-safe, as a Vm is.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "hypervisor/vm.h"
#include "memory/layout.h"
#include "support/check.h"

namespace bothy::hypervisor::testing {

class FakeVm final : public Vm {
 public:
  FakeVm() = default;
  ~FakeVm() override {
    const std::lock_guard lock(mutex_);
    CHECK(doorbells_.empty() && slots_.empty() && routes_ == 0);
  }
  FakeVm(const FakeVm&) = delete;
  FakeVm& operator=(const FakeVm&) = delete;

  // The messages sent since the last call.
  std::vector<MsiMessage> TakeMessages() {
    const std::lock_guard lock(mutex_);
    return std::exchange(messages_, {});
  }
  std::vector<DoorbellOptions> doorbells() const {
    const std::lock_guard lock(mutex_);
    std::vector<DoorbellOptions> all;
    for (const auto& [doorbell, options] : doorbells_) all.push_back(options);
    std::sort(all.begin(), all.end(), [](const DoorbellOptions& a, const DoorbellOptions& b) {
      return a.guest_physical < b.guest_physical;
    });
    return all;
  }
  // A guest's write of `size_bytes` there: rings what is attached; false when nothing is.
  bool Write(uint64_t guest_physical, uint32_t size_bytes, uint64_t value) {
    bool rang = false;
    for (const DoorbellOptions& options : doorbells()) {
      if (options.guest_physical != guest_physical) continue;
      if (options.size_bytes != 0 && options.size_bytes != size_bytes) continue;
      if (options.match.has_value() && *options.match != value) continue;
      const uint64_t one = 1;
      CHECK(::write(options.event_fd, &one, sizeof one) == sizeof one);
      rang = true;
    }
    return rang;
  }
  std::vector<MemorySlotOptions> slots() const {
    const std::lock_guard lock(mutex_);
    std::vector<MemorySlotOptions> all;
    for (const auto& [slot, options] : slots_) all.push_back(options);
    return all;
  }
  // The guest writes the page at `guest_physical`: into the log of the slot that is there.
  void MarkDirty(uint64_t guest_physical) {
    const std::lock_guard lock(mutex_);
    for (auto& [slot, options] : slots_) {
      const uint64_t offset = guest_physical - options.guest_physical;
      if (offset >= options.host.size() || !options.log_dirty) continue;
      const uint64_t page = offset / memory::kPageSize;
      dirty_[slot][page / 64] |= uint64_t{1} << page % 64;
    }
  }
  // What AttachDoorbell and MapMemory answer from now on.
  void FailWith(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    failure_ = status;
  }

  // Vm.
  absl::Status MapRam(uint64_t, std::span<uint8_t>) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<MemorySlot>> MapMemory(const MemorySlotOptions& options) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(failure_);
    for (const auto& [slot, other] : slots_) {
      if (options.guest_physical < other.guest_physical + other.host.size() &&
          other.guest_physical < options.guest_physical + options.host.size()) {
        return absl::AlreadyExistsError("fake: memory there already");
      }
    }
    auto slot = std::make_unique<Slot>(*this);
    slots_[slot.get()] = options;
    dirty_[slot.get()].resize((options.host.size() / memory::kPageSize + 63) / 64);
    return slot;
  }
  absl::StatusOr<std::unique_ptr<Doorbell>> AttachDoorbell(
      const DoorbellOptions& options) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(failure_);
    for (const auto& [doorbell, other] : doorbells_) {
      if (other.guest_physical == options.guest_physical &&
          other.size_bytes == options.size_bytes && other.match == options.match) {
        return absl::AlreadyExistsError("fake: a doorbell there already");
      }
    }
    auto doorbell = std::make_unique<Bell>(*this);
    doorbells_[doorbell.get()] = options;
    return doorbell;
  }
  absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t, uint32_t) override {
    return absl::UnimplementedError("fake: no vCPUs");
  }
  std::unique_ptr<IrqLine> CreateIrqLine(uint32_t) override { return std::make_unique<Line>(); }
  std::unique_ptr<MsiRoute> CreateMsiRoute() override {
    const std::lock_guard lock(mutex_);
    ++routes_;
    return std::make_unique<Route>(*this);
  }
  absl::Status StopClocks() override { return absl::OkStatus(); }
  absl::Status StartClocks() override { return absl::OkStatus(); }
  absl::Status CapturePowerOnState() override { return absl::OkStatus(); }
  absl::Status RestorePowerOnState() override { return absl::OkStatus(); }

 private:
  struct Line final : IrqLine {
    void Set(bool) override {}
  };
  class Route final : public MsiRoute {
   public:
    explicit Route(FakeVm& vm) : vm_(vm) {}
    ~Route() override {
      const std::lock_guard lock(vm_.mutex_);
      --vm_.routes_;
    }
    void Signal() override {
      const std::lock_guard lock(vm_.mutex_);
      if (updated_) vm_.messages_.push_back(message_);
    }
    void Update(const MsiMessage& message) override {
      const std::lock_guard lock(vm_.mutex_);
      message_ = message;
      updated_ = true;
    }
    absl::StatusOr<int> EventFd() override {
      return absl::UnimplementedError("fake: no event descriptors");
    }
    void Hold(bool) override {}

   private:
    FakeVm& vm_;
    MsiMessage message_;    // guarded by vm_.mutex_
    bool updated_ = false;  // guarded by vm_.mutex_
  };
  class Bell final : public Doorbell {
   public:
    explicit Bell(FakeVm& vm) : vm_(vm) {}
    ~Bell() override {
      const std::lock_guard lock(vm_.mutex_);
      vm_.doorbells_.erase(this);
    }

   private:
    FakeVm& vm_;
  };
  class Slot final : public MemorySlot {
   public:
    explicit Slot(FakeVm& vm) : vm_(vm) {}
    ~Slot() override {
      const std::lock_guard lock(vm_.mutex_);
      vm_.slots_.erase(this);
      vm_.dirty_.erase(this);
    }
    absl::StatusOr<std::vector<uint64_t>> TakeDirtyPages() override {
      const std::lock_guard lock(vm_.mutex_);
      if (!vm_.slots_[this].log_dirty) return absl::FailedPreconditionError("fake: no log");
      std::vector<uint64_t>& log = vm_.dirty_[this];
      return std::exchange(log, std::vector<uint64_t>(log.size()));
    }

   private:
    FakeVm& vm_;
  };

  mutable std::mutex mutex_;
  std::vector<MsiMessage> messages_;                          // guarded by mutex_
  std::map<const Doorbell*, DoorbellOptions> doorbells_;      // guarded by mutex_
  std::map<const MemorySlot*, MemorySlotOptions> slots_;      // guarded by mutex_
  std::map<const MemorySlot*, std::vector<uint64_t>> dirty_;  // guarded by mutex_
  uint64_t routes_ = 0;                                       // guarded by mutex_
  absl::Status failure_;                                      // guarded by mutex_
};

}  // namespace bothy::hypervisor::testing
