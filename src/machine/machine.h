// Machine: one virtual machine, from its configuration to its end.
//
// The life cycle (Resume, Pause, Restart, destruction) is driven by one thread, which these calls
// may block; it is not the control thread. vmservice/ owns the order of calls and the state the
// wire shows. Stats may be read from any thread at any time between creation and destruction.
//
// Changes of resources and Inspect come on the control thread, which they never block, at any time
// between creation and destruction: while the life-cycle thread is in Resume, Pause or Restart,
// too. So a machine keeps the bookkeeping of its resources on the control thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "chipset/power.h"
#include "inspect/node.h"
#include "machine/config.h"
#include "support/status.h"

namespace bothy::machine {

struct MachineStats {
  uint64_t assigned_ram_bytes = 0;
  uint64_t resident_ram_bytes = 0;
  uint64_t reserved_ram_bytes = 0;   // what the host has committed for it
  uint64_t available_ram_bytes = 0;  // as the guest said last; 0 when it has said nothing
  uint64_t vcpu_runtime_ns = 0;      // CPU time of the vCPU threads
};

// Hears what the guest does to its own power. Called from any thread, at most once between two
// Resumes; the guest has stopped or is about to. Must not call back into the machine.
using PowerObserver = std::function<void(chipset::PowerEvent)>;

enum class Change : uint8_t { kAdd, kRemove, kUpdate };

// How a change of a resource has ended. Called once, on the control thread, maybe before the call
// that began the change returns.
using ChangeDone = std::function<void(absl::Status)>;

class Machine {
 public:
  // Stops everything and frees it; nothing of the machine is left afterwards. On the life-cycle
  // thread. It waits for I/O, never for the guest nor for the control thread, which may be waiting
  // for it.
  //
  // Who waits for whom when a change is pending: the life cycle does, before it destroys anything.
  // It stops every change and comes here only when each has called its done, so a machine that is
  // destroyed has no change pending. The one exception is a server that ends without a teardown:
  // its control thread is inside ~Lifecycle and runs nothing meanwhile. Then pending changes are
  // dropped, and their done is destroyed without a call.
  virtual ~Machine() = default;

  // Runs the guest. Only while paused.
  virtual absl::Status Resume() = 0;
  // Returns when every vCPU has stopped and no device changes guest memory or files. Also called
  // after a power event to bring the rest of the machine to rest. Idempotent.
  virtual absl::Status Pause() = 0;
  // Back to power-on and boot again, still paused: memory cleared, devices reset, the kernel loaded
  // anew.
  virtual absl::Status Restart() = 0;

  [[nodiscard]] virtual MachineStats Stats() const = 0;
  // Has the guest say anew what Stats tells of its memory. Control thread; `done` is called there
  // when it has, or at once when it can't be asked. A guest may never answer: then `done` is called
  // when it is paused, or dropped when the machine ends.
  virtual void AskGuestMemory(std::function<void()> done) = 0;

  // Changes of resources: control thread only, any number at a time, but never two of the same
  // resource (a place on a SCSI controller; a path of persistent memory) at once. They work while
  // running and while paused, and they last: Restart keeps what they have made of the machine.
  //
  // All or nothing: done with an error means that the machine and every file are what they were.
  // Slow work (opening a chain of images, flushing) is done elsewhere, and done comes from there by
  // a post to the control thread.
  //
  // A requested `stop` means that nobody waits any more (the caller is gone, its deadline has
  // passed) or that the machine is about to end. A change that still waits, for the guest or its
  // turn, gives up: done with Cancelled, soon, without the guest's help, and the resource stays
  // usable. One that has gone too far to be given up ends as if there had been no stop; an addition
  // that nobody was told of is then taken back by the life cycle, with a kRemove. `stop` is
  // requested on the control thread, so callbacks on it run there.
  //
  // Errors begin with the field of the request at fault: "scsi_disk.host_path: ...",
  // "vpmem_disk.read_only: ...". Ranges have been checked.
  //   NotFound            no disk at that place or of that path (kRemove, kUpdate); no such file
  //   AlreadyExists       kAdd: the place or the path is taken
  //   InvalidArgument     kRemove: what else is said doesn't fit the disk that is there
  //                       (CheckNamesImage); not an image of that type
  //   DataLoss            a corrupt image
  //   FailedPrecondition  the image is in use
  //   DeadlineExceeded    the guest didn't answer an ejection; the disk stays usable

  //   kAdd     appears in the guest without a rescan
  //   kRemove  by controller and lun: leaves the guest, then is flushed and closed
  //   kUpdate  another path, type or read_only: the medium has been changed; the same: looks at the
  //            file again and reports its new size
  virtual void ModifyScsiDisk(Change change, ScsiDiskConfig disk, std::stop_token stop,
                              ChangeDone done) = 0;
  // A Restart while an ejection waits ends it: the guest that held the disk is no more.
  //   kAdd     appears in the guest
  //   kRemove  by path: the guest is asked to eject it, then it is flushed and closed
  // There is no kUpdate.
  virtual void ModifyPmemDisk(Change change, PmemDiskConfig disk, std::stop_token stop,
                              ChangeDone done) = 0;

  // Cards go by their nic_id; two with one address are AlreadyExists, too. A Restart while an
  // ejection waits ends it. Beside the errors above, those of net::OpenBackend.
  //   kAdd     appears in the guest
  //   kRemove  the guest is asked to eject it, then its backend is closed
  //   kUpdate  goes on with another backend; the guest sees its link go down and up
  virtual void ModifyNic(Change change, NicConfig nic, std::stop_token stop, ChangeDone done) = 0;

  // Errors begin with "port: " or "listener_path: "; nobody waits for the guest.
  //   kAdd     guests that connect to the port get to the listener
  //   kRemove  no more do; connections stay
  //   kUpdate  the next one gets to another listener
  virtual void ModifySocket(Change change, SocketConfig socket, ChangeDone done) = 0;

  // Describes memory, processors, chipset and devices: the top of the state tree, beside the life
  // cycle's own node "vm".
  virtual void Inspect(inspect::Node& root) const = 0;
  // Values that say how long the parts of its start took, "NAME_ns": Create's and Resume's.
  virtual void InspectStartup(inspect::Node& timings) const = 0;
};

// Builds a paused machine. All or nothing: a failure leaves the host as it was. Errors begin with
// the field at fault ("memory_config.memory_mb: ...", "devices_config.scsi_disks[3].host_path:
// ..."). May block; a stop that is requested while it populates RAM has it give up with Cancelled
// soon.
using MachineFactory = std::function<absl::StatusOr<std::unique_ptr<Machine>>(
    const MachineConfig&, PowerObserver, const std::stop_token&)>;

}  // namespace bothy::machine
