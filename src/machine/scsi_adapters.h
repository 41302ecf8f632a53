// ScsiAdapters: the SCSI host bus adapters of a machine, and the disks that come and go on them.
//
// One adapter a controller that has, or has had, a disk: those of the configuration are there at
// power-on, others are plugged in when their first disk is added. Each has a thread of its own,
// "io-scsiN", on which its disks live.
//
// Threads: AddConfigured on the life-cycle thread before the machine runs; Modify on that of
// `changes`; Inspect on any; destruction when neither happens any more.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <stop_token>
#include <vector>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "machine/machine.h"

namespace bothy::machine {

class ScsiAdapters {
 public:
  explicit ScsiAdapters(const DeviceHost& host);
  // Flushes and closes every disk. The functions are detached from their buses.
  ~ScsiAdapters();
  ScsiAdapters(const ScsiAdapters&) = delete;
  ScsiAdapters& operator=(const ScsiAdapters&) = delete;

  // Opens all of them, at the same time. Errors begin with "devices_config.scsi_disks[N].".
  absl::Status AddConfigured(const std::vector<ScsiDiskConfig>& disks);

  // As Machine::ModifyScsiDisk, but on the thread of `changes`, where `done` is called, too.
  void Modify(Change change, const ScsiDiskConfig& disk, const std::stop_token& stop,
              const ChangeDone& done);

  // A directory for each adapter: "scsi0".
  void Inspect(inspect::Node& node) const;

 private:
  class Adapter;
  // The adapter of a controller, made and plugged in when there is none yet.
  absl::StatusOr<Adapter*> AdapterOf(uint32_t controller, bool hot);

  const DeviceHost host_;
  mutable std::mutex mutex_;  // guards changes of adapters_ and reads from other threads
  std::array<std::unique_ptr<Adapter>, kScsiControllers> adapters_;
};

}  // namespace bothy::machine
