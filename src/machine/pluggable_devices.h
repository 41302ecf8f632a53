// PluggableDevices: the devices of a machine that come and go, and the thread that changes them.
//
// Changes of all devices are made on one thread, "changes", which may block for as long as the host
// takes and never waits for the guest: what waits for the guest continues in a callback.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <thread>
#include <utility>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "machine/device_units.h"
#include "machine/hypervisor_sockets.h"
#include "machine/machine.h"
#include "machine/memory_balloon.h"
#include "machine/network_cards.h"
#include "machine/pmem_disks.h"
#include "machine/scsi_adapters.h"
#include "support/event_loop.h"

namespace bothy::machine {

class PluggableDevices {
 public:
  // Those of the configuration are there when this returns. Errors begin with the field
  // ("devices_config.scsi_disks[3].host_path: ..."). Everything given outlives the object;
  // `control` is where changes are done.
  static absl::StatusOr<std::unique_ptr<PluggableDevices>> Create(const MachineConfig& config,
                                                                  PciTopology& pci,
                                                                  hypervisor::Vm& vm,
                                                                  memory::GuestMemory& memory,
                                                                  EventLoop& control);
  // Drops changes that are pending, flushes and closes. The topology has gone before, so that no
  // function is on a bus any more.
  ~PluggableDevices();

  // As Machine's, on the control thread.
  void ModifyScsiDisk(Change change, ScsiDiskConfig disk, std::stop_token stop, ChangeDone done);
  void ModifyPmemDisk(Change change, PmemDiskConfig disk, std::stop_token stop, ChangeDone done);
  void ModifyNic(Change change, NicConfig nic, std::stop_token stop, ChangeDone done);
  void ModifySocket(Change change, SocketConfig socket, ChangeDone done);
  void Inspect(inspect::Node& node) const;
  // Machine::AskGuestMemory, and what the guest said.
  void AskGuestMemory(std::function<void()> done) { balloon_->AskGuest(std::move(done)); }
  [[nodiscard]] uint64_t AvailableGuestMemory() const { return balloon_->available_bytes(); }
  [[nodiscard]] bool HasPersistentMemory() const { return !pmem_.empty(); }
  // PmemDisks::RecoverMemory: on a vCPU's thread.
  bool RecoverMemory(uint64_t& recoveries_seen) { return pmem_.RecoverMemory(recoveries_seen); }

  [[nodiscard]] DeviceUnits& units() { return units_; }

 private:
  PluggableDevices(const MachineConfig& config, PciTopology& pci, hypervisor::Vm& vm,
                   memory::GuestMemory& memory, EventLoop& control);
  // `done` on the control thread.
  [[nodiscard]] ChangeDone OnControl(ChangeDone done);

  EventLoop& control_;
  DeviceUnits units_;
  EventLoop changes_;
  const DeviceHost host_;
  PmemDisks pmem_;  // after all that may still access it has gone
  ScsiAdapters scsi_;
  NetworkCards nics_;
  std::unique_ptr<HypervisorSockets> sockets_;
  std::unique_ptr<MemoryBalloon> balloon_;
  std::thread thread_;
};

}  // namespace bothy::machine
