// HypervisorSockets: the socket device of a machine and what it leads to on the host: a
// virtio-vsock function on bus 0, the table of listeners, the path that programs of the host
// connect to.
//
// The device has a thread of its own, where all of this lives. Threads: Create and destruction on
// the life-cycle thread; Modify and Inspect on the control thread.
#pragma once

#include <memory>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "machine/machine.h"
#include "sockets/connect_listener.h"
#include "sockets/port_table.h"
#include "support/event_loop.h"
#include "support/io_loop.h"
#include "virtio/pci/pci_device.h"
#include "virtio/vsock/vsock_device.h"

namespace bothy::machine {

class HypervisorSockets {
 public:
  // Errors begin with the field ("hvsocket_config.path: ..."). Before the guest runs.
  static absl::StatusOr<std::unique_ptr<HypervisorSockets>> Create(const SocketsConfig& config,
                                                                   const DeviceHost& host,
                                                                   EventLoop& control);
  // Closes every connection and removes the path. The function is detached from its bus.
  ~HypervisorSockets();
  HypervisorSockets(const HypervisorSockets&) = delete;
  HypervisorSockets& operator=(const HypervisorSockets&) = delete;

  // As Machine::ModifySocket.
  void Modify(Change change, SocketConfig socket, ChangeDone done);
  // A directory "vsock0".
  void Inspect(inspect::Node& node) const;

 private:
  HypervisorSockets(const SocketsConfig& config, const DeviceHost& host, EventLoop& control);
  absl::Status Open();
  [[nodiscard]] absl::Status Apply(Change change, const SocketConfig& socket);

  const SocketsConfig config_;
  const DeviceHost& host_;
  EventLoop& control_;
  std::unique_ptr<IoThread> io_;
  // On the device's thread.
  sockets::PortTable ports_;
  std::unique_ptr<virtio::VsockDevice> device_;
  std::unique_ptr<sockets::ConnectListener> listener_;

  std::unique_ptr<virtio::PciDevice> function_;
  bool counted_ = false;  // among the machine's units
};

}  // namespace bothy::machine
