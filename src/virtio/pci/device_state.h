// What a driver has told a virtio PCI device: plain values, apart from handles, so that they can be
// saved one day.
#pragma once

#include <cstdint>
#include <vector>

namespace bothy::virtio {

// Status bits (virtio 1.2, 2.1).
inline constexpr uint8_t kStatusAcknowledge = 1;
inline constexpr uint8_t kStatusDriver = 2;
inline constexpr uint8_t kStatusDriverOk = 4;
inline constexpr uint8_t kStatusFeaturesOk = 8;
inline constexpr uint8_t kStatusNeedsReset = 64;
inline constexpr uint8_t kStatusFailed = 128;

// "No vector" of 4.1.4.3.
inline constexpr uint16_t kNoVector = 0xFFFF;

struct QueueState {
  uint16_t size = 0;
  uint16_t vector = kNoVector;
  bool enabled = false;
  uint64_t descriptor_gpa = 0;
  uint64_t driver_gpa = 0;
  uint64_t device_gpa = 0;
};

struct DeviceState {
  uint8_t status = 0;
  uint8_t config_generation = 0;
  uint8_t isr = 0;
  uint32_t device_feature_select = 0;
  uint32_t driver_feature_select = 0;
  uint64_t driver_features = 0;
  uint16_t config_vector = kNoVector;
  uint16_t queue_select = 0;
  std::vector<QueueState> queues;
};

}  // namespace bothy::virtio
