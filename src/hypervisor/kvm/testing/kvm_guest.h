// A guest of a few instructions on any /dev/kvm, for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "hypervisor/kvm/kvm.h"
#include "support/mapping.h"

namespace bothy::hypervisor::kvm::testing {

inline constexpr size_t kRamBytes = 0x1'0000;

// Records accesses and lets a test wait for them.
class RecordingHandler final : public ExitHandler {
 public:
  void PortRead(uint16_t, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), 0x5A);
  }
  void PortWrite(uint16_t port, std::span<const uint8_t> data) override {
    const std::lock_guard lock(mutex_);
    writes_.emplace_back(port, data[0]);
    changed_.notify_all();
  }
  void MmioRead(uint64_t, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), 0x33);
  }
  void MmioWrite(uint64_t address, std::span<const uint8_t> data) override {
    const std::lock_guard lock(mutex_);
    mmio_writes_.emplace_back(address, data[0]);
  }
  std::vector<std::pair<uint16_t, uint8_t>> WaitForWrites(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return writes_.size() >= count; });
    return writes_;
  }
  std::vector<std::pair<uint64_t, uint8_t>> mmio_writes() {
    const std::lock_guard lock(mutex_);
    return mmio_writes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<uint16_t, uint8_t>> writes_;
  std::vector<std::pair<uint64_t, uint8_t>> mmio_writes_;
};

class KvmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto kvm = OpenKvm();
    ASSERT_TRUE(kvm.ok()) << kvm.status();
    kvm_ = std::move(kvm).value();
    auto vm = kvm_->CreateVm();
    ASSERT_TRUE(vm.ok()) << vm.status();
    vm_ = std::move(vm).value();
    auto ram = Mapping::Create(kRamBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                               0, "RAM");
    ASSERT_TRUE(ram.ok());
    ram_ = std::move(ram).value();
    ASSERT_TRUE(vm_->MapRam(0, ram_.bytes()).ok());
    auto vcpu = vm_->CreateVcpu(0, 1);
    ASSERT_TRUE(vcpu.ok()) << vcpu.status();
    vcpu_ = std::move(vcpu).value();
  }

  // 32-bit protected mode with flat segments, code at 0x1000.
  void Load(std::vector<uint8_t> code) {
    std::memcpy(ram_.data() + 0x1000, code.data(), code.size());
    ASSERT_TRUE(vcpu_->SetEntry(Entry()).ok());
  }
  static EntryRegisters Entry() {
    EntryRegisters entry;
    entry.rip = 0x1000;
    entry.rsp = 0x8000;
    entry.cr0 = 0x11;
    entry.cs = {.selector = 0x08,
                .limit = 0xFFFF'FFFF,
                .type = 0xB,
                .default_32 = true,
                .granularity_4k = true};
    entry.data = {.selector = 0x10,
                  .limit = 0xFFFF'FFFF,
                  .type = 0x3,
                  .default_32 = true,
                  .granularity_4k = true};
    entry.tr = {.selector = 0x18, .limit = 0x67, .type = 0xB, .code_or_data = false};
    return entry;
  }

  std::unique_ptr<Hypervisor> kvm_;
  Mapping ram_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Vcpu> vcpu_;
  RecordingHandler handler_;
};

}  // namespace bothy::hypervisor::kvm::testing
