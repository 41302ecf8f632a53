// What a virtio-scsi driver and device exchange (virtio 1.2, 5.6): offsets in bytes, all
// little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bothy::virtio::scsi_wire {

// Queues (5.6.2); request queues follow.
inline constexpr uint16_t kControlQueue = 0;
inline constexpr uint16_t kEventQueue = 1;
inline constexpr uint16_t kFirstRequestQueue = 2;

// Feature bits (5.6.3).
inline constexpr uint64_t kFeatureHotplug = uint64_t{1} << 1;
inline constexpr uint64_t kFeatureChange = uint64_t{1} << 2;

// Configuration (5.6.4).
inline constexpr size_t kConfigBytes = 36;
inline constexpr size_t kConfigNumQueues = 0;
inline constexpr size_t kConfigSegMax = 4;
inline constexpr size_t kConfigMaxSectors = 8;
inline constexpr size_t kConfigCmdPerLun = 12;
inline constexpr size_t kConfigEventInfoSize = 16;
inline constexpr size_t kConfigSenseSize = 20;
inline constexpr size_t kConfigCdbSize = 24;
inline constexpr size_t kConfigMaxChannel = 28;
inline constexpr size_t kConfigMaxTarget = 30;
inline constexpr size_t kConfigMaxLun = 32;
inline constexpr uint32_t kDefaultSenseSize = 96;
inline constexpr uint32_t kDefaultCdbSize = 32;

// A request's header (5.6.6.1): LUN, tag, then attribute, priority and CRN, then the CDB.
inline constexpr size_t kLunBytes = 8;
inline constexpr size_t kRequestLun = 0;
inline constexpr size_t kRequestTag = 8;
inline constexpr size_t kRequestAttribute = 16;
inline constexpr size_t kRequestCdb = 19;

// Task attributes (5.6.6.1).
inline constexpr uint8_t kSimpleTask = 0;
inline constexpr uint8_t kOrderedTask = 1;
inline constexpr uint8_t kHeadTask = 2;

// A request's response, followed by the sense data.
inline constexpr size_t kResponseSenseLength = 0;
inline constexpr size_t kResponseResidual = 4;
inline constexpr size_t kResponseStatus = 10;
inline constexpr size_t kResponseResponse = 11;
inline constexpr size_t kResponseSense = 12;

enum class Response : uint8_t {
  kOk = 0,
  kOverrun = 1,
  kAborted = 2,
  kBadTarget = 3,
  kReset = 4,
  kBusy = 5,
  kTransportFailure = 6,
  kTargetFailure = 7,
  kNexusFailure = 8,
  kFailure = 9,
  kFunctionSucceeded = 10,
  kFunctionRejected = 11,
  kIncorrectLun = 12,
};

// Control requests (5.6.6.2).
enum class ControlType : uint32_t { kTaskManagement = 0, kQuery = 1, kSubscribe = 2 };
enum class TaskFunction : uint32_t {
  kAbortTask = 0,
  kAbortTaskSet = 1,
  kClearAca = 2,
  kClearTaskSet = 3,
  kNexusReset = 4,
  kLogicalUnitReset = 5,
  kQueryTask = 6,
  kQueryTaskSet = 7,
};
inline constexpr size_t kControlTypeBytes = 4;
inline constexpr size_t kTaskManagementBytes = 24;  // type, subtype, LUN, tag
inline constexpr size_t kTaskManagementSubtype = 4;
inline constexpr size_t kTaskManagementLun = 8;
inline constexpr size_t kTaskManagementTag = 16;
inline constexpr size_t kNotificationBytes = 16;         // type, LUN, events asked for
inline constexpr size_t kNotificationResponseBytes = 5;  // events, response

// Events (5.6.6.3): event, LUN, reason.
inline constexpr size_t kEventBytes = 16;
inline constexpr uint32_t kEventTransportReset = 1;
inline constexpr uint32_t kEventParamChange = 3;
inline constexpr uint32_t kReasonRescan = 1;
inline constexpr uint32_t kReasonRemoved = 2;

}  // namespace bothy::virtio::scsi_wire
