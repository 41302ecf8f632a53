// PmemDisks: the persistent memory of a machine: virtio-pmem functions on root ports, each with a
// disk image mapped into guest-physical memory.
//
// Threads: AddConfigured on the life-cycle thread before the machine runs; Modify on that of
// `changes`; empty, Inspect and RecoverMemory on any; destruction when none happens any more.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "machine/machine.h"
#include "support/mapping.h"

namespace bothy::machine {

class PmemDisks {
 public:
  explicit PmemDisks(const DeviceHost& host);
  // Writes back, flushes and closes every one. The functions are detached from their buses.
  ~PmemDisks();
  PmemDisks(const PmemDisks&) = delete;
  PmemDisks& operator=(const PmemDisks&) = delete;

  // Errors begin with "devices_config.vpmem_disks[N].".
  absl::Status AddConfigured(const std::vector<PmemDiskConfig>& disks);
  // As Machine::ModifyPmemDisk, but on the thread of `changes`, where `done` is called, too.
  void Modify(Change change, const PmemDiskConfig& disk, const std::stop_token& stop,
              const ChangeDone& done);
  // A vCPU couldn't access guest memory: true when that was persistent memory, which it can now
  // (PmemWindow::OnFault). `recoveries_seen` is the vCPU's own, 0 at first.
  bool RecoverMemory(uint64_t& recoveries_seen);
  [[nodiscard]] bool empty() const;
  // A directory for each: "pmem0".
  void Inspect(inspect::Node& node) const;

 private:
  class Device;
  absl::Status Add(const ImageConfig& image);
  // Out of devices_: no other thread has it any more.
  std::unique_ptr<Device> Take(const std::string& path);
  // Closes it; its addresses are kept.
  absl::Status Retire(Device& device);
  void Remove(const std::string& path, const std::stop_token& stop, const ChangeDone& done);

  const DeviceHost host_;
  std::map<std::string, std::unique_ptr<Device>> devices_;  // by path
  // I/O of other devices that was given such an address may still be under way.
  std::vector<Mapping> retired_;
  mutable std::mutex mutex_;  // guards changes of devices_ and reads from other threads
  uint64_t recoveries_ = 0;   // guarded by mutex_
};

}  // namespace bothy::machine
