// Interrupts as devices see them: lines and messages.
//
// A device gets an IrqLine for each line it drives, or an MsiRoute for each message it sends, and
// knows neither the hypervisor nor the interrupt controller behind it. Levels are idempotent:
// setting the level a line already has costs nothing.
#pragma once

#include <cstdint>

#include "support/status.h"

namespace bothy::hypervisor {

// A level on an input (GSI) of the I/O APIC and, below 16, of the PIC. Thread-safe.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  virtual void Set(bool asserted) = 0;
};

// What a message-signalled interrupt writes where (PCI Local Bus 3.0, 6.8.1). Chosen by the guest.
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// A source of message-signalled interrupts. Masking is the business of whoever owns it
// (pci/msix.h). Thread-safe; Signal takes no lock.
class MsiRoute {
 public:
  virtual ~MsiRoute() = default;
  // Sends the latest message, straight into the local APICs: one system call, and no vCPU leaves
  // guest code for user space. Nothing before the first Update. A message that names no APIC goes
  // nowhere.
  virtual void Signal() = 0;
  // What Signal and writes to the event descriptor send from now on.
  virtual void Update(const MsiMessage& message) = 0;
  // An eventfd that sends the message when it is written, for what signals from inside the host's
  // kernel (VFIO, vhost). Made when it is first asked for, owned by the route. ResourceExhausted
  // when the host has no descriptor, or the hypervisor no route, left.
  virtual absl::StatusOr<int> EventFd() = 0;
  // While it is held, what is written to the event descriptor waits there. Costs nothing when
  // nothing changes or there is no such descriptor.
  virtual void Hold(bool held) = 0;
};

}  // namespace bothy::hypervisor
