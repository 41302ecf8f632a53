// ScsiDriver: a driver of a virtio-scsi controller that stands on bus 0, as a guest's would be: it
// finds the controller in configuration space, sets it up through its BAR, and reads blocks.
//
// Takes guest RAM from `base` on, kRamBytes of it. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "chipset/bus.h"
#include "hypervisor/testing/fake_vm.h"
#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/endian.h"
#include "virtio/pci/registers.h"
#include "virtio/scsi/wire.h"
#include "virtio/testing/driver_queue.h"

namespace bothy::machine {

class ScsiDriver {
 public:
  static constexpr uint64_t kRamBytes = 0x10000;
  static constexpr uint32_t kBlockBytes = 512;

  ScsiDriver(memory::GuestMemory& memory, chipset::IoBus& mmio, hypervisor::testing::FakeVm& vm,
             uint64_t base)
      : memory_(memory), mmio_(mmio), vm_(vm), data_(base + 0x8000) {
    FindController();
    SetUp(base);
  }

  // READ(10) of one block of a logical unit; the SCSI status, or nothing where the response says
  // that there is no such unit.
  std::optional<uint8_t> ReadBlock(uint8_t lun) {
    namespace wire = virtio::scsi_wire;
    constexpr size_t kRequestBytes = wire::kRequestCdb + wire::kDefaultCdbSize;
    constexpr size_t kResponseBytes = wire::kResponseSense + wire::kDefaultSenseSize;
    std::array<uint8_t, kRequestBytes> request{};
    request[wire::kRequestLun] = 1;  // single level, target 0 (5.6.6.1)
    request[wire::kRequestLun + 2] = 0x40;
    request[wire::kRequestLun + 3] = lun;
    request[wire::kRequestCdb] = 0x28;
    request[wire::kRequestCdb + 8] = 1;  // block
    CHECK_OK(memory_.Write(data_, request));
    const uint64_t response = data_ + 0x1000;
    const std::array<virtio::testing::DriverQueue::Buffer, 3> buffers = {
        {{.gpa = data_, .length = kRequestBytes},
         {.gpa = response, .length = kResponseBytes, .writable = true},
         {.gpa = data_ + 0x2000, .length = kBlockBytes, .writable = true}}};
    CHECK(requests_->Add(buffers).has_value());
    CHECK(vm_.Write(bar_ + virtio::kDoorbellOffset +
                        uint64_t{wire::kFirstRequestQueue} * virtio::kDoorbellStride,
                    2, wire::kFirstRequestQueue));
    // Interrupts go nowhere here.
    while (!requests_->TakeUsed().has_value()) std::this_thread::yield();
    const auto code = memory_.ReadObject<uint8_t>(response + wire::kResponseResponse).value();
    if (code == static_cast<uint8_t>(wire::Response::kBadTarget)) return std::nullopt;
    return memory_.ReadObject<uint8_t>(response + wire::kResponseStatus).value();
  }

 private:
  // PCI's configuration space and the device's common configuration (virtio 1.2, 4.1.4.3).
  static constexpr uint32_t kScsiFunction = 0x1048'1AF4;
  static constexpr uint64_t kFunctions = 256;
  static constexpr uint64_t kCommand = 0x04;
  static constexpr uint64_t kBar0 = 0x10;
  static constexpr uint64_t kDriverFeatureSelect = 8;
  static constexpr uint64_t kDriverFeature = 12;
  static constexpr uint64_t kStatus = 20;
  static constexpr uint64_t kQueueSelect = 22;
  static constexpr uint64_t kQueueSize = 24;
  static constexpr uint64_t kQueueEnable = 28;
  static constexpr uint64_t kQueueAddresses = 32;

  template <typename T>
  T Get(uint64_t address) {
    std::array<uint8_t, sizeof(T)> data{};
    mmio_.Read(address, data);
    return LoadLe<T>(data.data());
  }
  template <typename T>
  void Put(uint64_t address, T value) {
    std::array<uint8_t, sizeof(T)> data{};
    StoreLe<T>(data.data(), value);
    mmio_.Write(address, data);
  }
  template <typename T>
  void PutCommon(uint64_t offset, T value) {
    Put<T>(bar_ + virtio::kCommonOffset + offset, value);
  }

  void FindController() {
    const uint64_t ecam = memory_.layout().ecam.base;
    for (uint64_t function = 0; function < kFunctions; ++function) {
      const uint64_t config = ecam + (function << 12);
      if (Get<uint32_t>(config) != kScsiFunction) continue;
      bar_ = (uint64_t{Get<uint32_t>(config + kBar0 + 4)} << 32) |
             (Get<uint32_t>(config + kBar0) & ~uint32_t{0xF});
      Put<uint16_t>(config + kCommand, 0x6);  // memory, bus master
      return;
    }
    CHECK(false);
  }
  void SetUp(uint64_t base) {
    namespace wire = virtio::scsi_wire;
    constexpr uint16_t kSize = 8;
    PutCommon<uint8_t>(kStatus, 0);
    PutCommon<uint8_t>(kStatus, 1 | 2);
    PutCommon<uint32_t>(kDriverFeatureSelect, 1);
    PutCommon<uint32_t>(kDriverFeature, 1);  // VIRTIO_F_VERSION_1
    PutCommon<uint8_t>(kStatus, 1 | 2 | 8);
    for (const uint16_t queue :
         {wire::kControlQueue, wire::kEventQueue, wire::kFirstRequestQueue}) {
      queues_.emplace_back(memory_, base + uint64_t{queue} * 0x1000, kSize);
      const virtio::QueueSetup& setup = queues_.back().setup();
      PutCommon<uint16_t>(kQueueSelect, queue);
      PutCommon<uint16_t>(kQueueSize, kSize);
      const std::array<uint64_t, 3> addresses = {setup.descriptor_gpa, setup.driver_gpa,
                                                 setup.device_gpa};
      for (size_t i = 0; i < addresses.size(); ++i) {
        PutCommon<uint32_t>(kQueueAddresses + 8 * i, static_cast<uint32_t>(addresses[i]));
        PutCommon<uint32_t>(kQueueAddresses + 8 * i + 4, static_cast<uint32_t>(addresses[i] >> 32));
      }
      PutCommon<uint16_t>(kQueueEnable, 1);
    }
    requests_ = &queues_.back();
    PutCommon<uint8_t>(kStatus, 1 | 2 | 4 | 8);
  }

  memory::GuestMemory& memory_;
  chipset::IoBus& mmio_;
  hypervisor::testing::FakeVm& vm_;
  const uint64_t data_;
  uint64_t bar_ = 0;
  std::vector<virtio::testing::DriverQueue> queues_;
  virtio::testing::DriverQueue* requests_ = nullptr;
};

}  // namespace bothy::machine
