// RootPort: a PCI Express root port with a hot-plug slot behind it.
//
// PCI Express Base 5.0, 7.5.1.3 (type 1 header), 7.5.3 (capability with a slot) and 6.7 (hot-plug).
// The slot has an attention button and a power indicator, no power controller, no attention
// indicator, and commands complete at once. Linux's pciehp and Windows drive it.
//
//   RootPort port({.slot = 3, .bus = 4, ...}, vm);
//   complex.AttachPort({2, 1}, port);
//   port.Plug(function);                            // there at power-on, or hot
//   port.RequestRemoval([](absl::Status status) { ... });
//
// Plug on a running guest changes presence and link state; the guest enumerates. RequestRemoval
// presses the attention button. The guest then unbinds its driver, which for Linux begins five
// seconds after the press (its users may press again to change their mind), and turns the power
// indicator off: the device is detached, and `done` is called. A guest that has never looked at
// the device isn't asked.
//
// Threads: configuration accesses on vCPU threads; Plug, RequestRemoval and CancelRemoval on any
// thread, but one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "hypervisor/vm.h"
#include "inspect/node.h"
#include "memory/layout.h"
#include "pci/bus.h"
#include "pci/config_registers.h"
#include "pci/function.h"
#include "support/status.h"

namespace bothy::pci {

struct RootPortOptions {
  uint16_t slot = 0;  // physical slot number, 1..8191, different for every port of a machine
  uint8_t bus = 0;    // the one behind it, as firmware would number it
  // What firmware would have it pass on: multiples of 1 MiB; size 0: nothing.
  memory::AddressRange memory_window = {};        // below 4 GiB
  memory::AddressRange prefetchable_window = {};  // anywhere
  bool multifunction = false;                     // other functions have the same device number
};

class RootPort final : public Function {
 public:
  using RemovalDone = std::function<void(absl::Status)>;

  RootPort(const RootPortOptions& options, hypervisor::Vm& vm);
  // Nothing is plugged in, or whatever is outlives it; a pending removal is dropped without a call.
  ~RootPort() override;

  // Puts `function` into the slot, at device 0 function 0 of the bus behind it. It must outlive
  // its stay. AlreadyExists when the slot is taken.
  absl::Status Plug(Function& function);

  // Asks the guest to let go of what is plugged in. `done` is called once:
  //   OK            it is detached, no vCPU is inside it, and the slot is free
  //   what CancelRemoval was given
  // before this returns, in CancelRemoval, or on a vCPU thread; it must not block nor call the
  // port. A reset of the machine ends the removal with OK. FailedPrecondition, without a call, when
  // the slot is empty or there is a removal already.
  absl::Status RequestRemoval(RemovalDone done);
  // Gives a removal up: `done` gets `reason`, and the device stays usable. A guest that was still
  // waiting is told to stay with it; one that lets go of it all the same finds it again at once.
  // False when there is no removal (any more).
  bool CancelRemoval(const absl::Status& reason);

  [[nodiscard]] bool occupied() const;
  [[nodiscard]] uint16_t slot() const { return options_.slot; }
  [[nodiscard]] const RootPortOptions& options() const { return options_; }

  // For RootComplex: the bus that the guest has numbered `bus` if that is the one right behind this
  // port, else null.
  [[nodiscard]] const Bus* BusNumbered(uint64_t bus) const;

  // Function.
  uint32_t ReadConfig(uint16_t offset) override;
  void WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) override;
  void Reset() override;

  void Inspect(inspect::Node& node) const;

 private:
  // What Slot Control says of the power indicator (7.5.3.10).
  enum class Indicator : uint8_t { kReserved = 0, kOn = 1, kBlink = 2, kOff = 3 };

  void DefineHeader();
  void DefineExpressCapability();
  void DefineMsiCapability();

  [[nodiscard]] Indicator indicator() const;                             // holds mutex_
  void SetIndicator(Indicator value);                                    // holds mutex_
  void OnIndicator(Indicator before, Indicator now, RemovalDone& done);  // holds mutex_
  void Press();                                                          // holds mutex_
  void Unplug();                                                         // holds mutex_
  // What Slot and Link Status say of the slot's content now; and that it has changed.
  void ShowPresence();                         // holds mutex_
  void RaiseSlotEvents(uint32_t events);       // holds mutex_
  [[nodiscard]] bool InterruptWanted() const;  // holds mutex_
  void UpdateInterrupt();                      // holds mutex_
  void UpdateBusNumbers();                     // holds mutex_

  const RootPortOptions options_;
  const std::unique_ptr<hypervisor::MsiRoute> msi_;
  Bus secondary_bus_;
  // The double word at 0x18, and whether anybody has looked at the bus behind since it was plugged.
  std::atomic<uint32_t> bus_numbers_{0};
  mutable std::atomic<bool> looked_at_{false};

  mutable std::mutex mutex_;
  ConfigRegisters registers_;    // guarded by mutex_
  Function* plugged_ = nullptr;  // guarded by mutex_
  RemovalDone removal_;          // guarded by mutex_; not null while a removal is under way
  // The guest was blinking when its removal was given up: it may let go nevertheless.
  bool given_up_ = false;            // guarded by mutex_
  bool on_before_blinking_ = false;  // guarded by mutex_
  bool interrupting_ = false;        // guarded by mutex_
  uint64_t plugs_ = 0;               // guarded by mutex_
  uint64_t removals_ = 0;            // guarded by mutex_
};

}  // namespace bothy::pci
