// Endpoint: a PCI Express function with memory behind BARs, capabilities and MSI-X.
//
// What every device of the guest's has in common; what is behind its BARs are IoDevices of the
// device's own. Put together before it is attached to a bus, in any order, then left to the guest:
//
//   pci::Endpoint function({.ids = {.vendor = 0x1AF4, ...}}, {.vm = vm, .mmio = mmio});
//   function.AddBar(0, {.size_bytes = 0x8000});
//   function.AddRegion(0, 0x0000, registers.size(), registers);
//   function.AddDoorbell(0, 0x3000, queue_event_fd);
//   function.AddMsix(0, {.vectors = 4, .table_offset = 0x4000, .pending_offset = 0x6000});
//   function.AddCapability(kCapabilityVendorSpecific, body);
//   ...
//   function.msix_vector(2).Signal();
//
// BARs are 64-bit and prefetchable unless they say otherwise, so that they fit into either window
// of a bridge. While the guest has enabled memory decoding, what is behind a BAR answers at the
// address the guest gave it, and doorbells ring there; both follow when the BAR moves. A BAR that
// the guest puts on top of something else doesn't answer there until it moves again.
//
// Threads: configuration accesses on vCPU threads. An IoDevice behind a BAR mustn't call back into
// its endpoint, but for vectors: moving a BAR waits for the accesses to it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "chipset/bus.h"
#include "hypervisor/vm.h"
#include "inspect/node.h"
#include "pci/config_registers.h"
#include "pci/function.h"
#include "pci/msix.h"
#include "support/log.h"

namespace bothy::pci {

inline constexpr uint8_t kBarCount = 6;

struct Ids {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
  uint32_t class_code = 0;  // 24 bits: class, subclass, programming interface
  uint8_t revision = 0;
};

// What a function needs of the machine; both outlive it.
struct EndpointHost {
  hypervisor::Vm& vm;
  chipset::IoBus& mmio;
};

// Double words of configuration space that a device answers for itself. Called on vCPU threads,
// concurrently; must not block.
class ConfigHandler {
 public:
  virtual ~ConfigHandler() = default;
  // As Function's; `offset` counts from the start of the capability.
  virtual uint32_t ReadCapability(uint16_t offset) = 0;
  virtual void WriteCapability(uint16_t offset, uint32_t value, uint32_t enabled) = 0;
};

struct EndpointOptions {
  std::string name = {};  // in logs
  Ids ids = {};
  // Called when the function is reset from outside (its slot loses power, the bus behind its port
  // is reset) after the same has been done to configuration space: the device forgets its driver.
  // On a vCPU thread or on that which unplugs; must not block, nor call the endpoint.
  std::function<void()> on_bus_reset = nullptr;
};

struct BarOptions {
  uint64_t size_bytes = 0;  // a power of two, at least 4 KiB
  bool is_64_bit = true;    // takes the next BAR's register as well
  bool prefetchable = true;
};

struct MsixOptions {
  uint16_t vectors = 1;
  // Within the BAR, multiples of 8. The table is 16 bytes a vector, the pending bits 8 bytes for
  // each 64 vectors begun; no region may overlap them.
  uint32_t table_offset = 0;
  uint32_t pending_offset = 0;
};

class Endpoint final : public Function {
 public:
  Endpoint(EndpointOptions options, const EndpointHost& host);
  // Detached, and no vCPU is inside.
  ~Endpoint() override;

  // Only before it is attached. What is wrong with the arguments is a CHECK.
  void AddBar(uint8_t bar, const BarOptions& options);
  // `device` answers for [offset, offset + size_bytes) of a BAR that was added. It outlives the
  // endpoint. Regions don't overlap; what is between them reads as all ones.
  void AddRegion(uint8_t bar, uint64_t offset, uint64_t size_bytes, chipset::IoDevice& device);
  // A write of any size at `offset` of a BAR that was added rings `event_fd`, which outlives the
  // endpoint. The region there sees such writes as well when they can't be caught (the guest has
  // put something else there), so it has to ring on its own.
  void AddDoorbell(uint8_t bar, uint64_t offset, int event_fd);
  void AddMsix(uint8_t bar, const MsixOptions& options);
  // `body` follows the two bytes of id and next pointer; read-only. Returns the capability's
  // offset.
  uint16_t AddCapability(uint8_t id, std::span<const uint8_t> body);
  // The same, but from the second double word on `handler`, which outlives the endpoint, answers
  // instead: `body` is only what is read in the first, and a length.
  uint16_t AddCapability(uint8_t id, std::span<const uint8_t> body, ConfigHandler& handler);

  // Vectors that AddMsix made: 0 to `vectors` - 1.
  [[nodiscard]] MsixVector& msix_vector(uint16_t index) { return msix_->vector(index); }
  [[nodiscard]] uint16_t msix_vector_count() const { return msix_ ? msix_->count() : 0; }

  // For whoever gives out addresses (machine/pci_topology.h): the BARs there are, and what they
  // hold after a reset, as firmware would have written it. 0: nothing.
  struct Bar {
    uint8_t index = 0;
    BarOptions options;
    uint64_t address = 0;  // now
    bool decoded = false;  // answers there
  };
  [[nodiscard]] std::vector<Bar> bars() const;
  void SetBarAtReset(uint8_t bar, uint64_t address);
  // Whether it is part of the root complex (on bus 0) or behind a port, which is the default; only
  // before it is attached.
  void SetIntegrated(bool integrated);

  // Function.
  uint32_t ReadConfig(uint16_t offset) override;
  void WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) override;
  void Reset() override;
  void BusReset() override;

  void Inspect(inspect::Node& node) const;

 private:
  struct Region {
    uint64_t offset = 0;
    uint64_t size_bytes = 0;
    chipset::IoDevice* device = nullptr;
  };
  struct DoorbellPlace {
    uint64_t offset = 0;
    int event_fd = -1;
    std::unique_ptr<hypervisor::Doorbell> attached;
  };
  struct BarState {
    BarOptions options;  // size 0: no such BAR
    std::vector<Region> regions;
    std::vector<DoorbellPlace> doorbells;
    uint64_t reset_address = 0;
    std::optional<uint64_t> decoded_at;
  };
  struct Handled {
    uint16_t first = 0;  // offset of the capability
    uint16_t end = 0;
    ConfigHandler* handler = nullptr;
  };

  [[nodiscard]] const Handled* HandlerOf(uint16_t offset) const;
  [[nodiscard]] uint64_t BarAddress(uint8_t bar) const;   // holds mutex_
  void WriteBarRegisters(uint8_t bar, uint64_t address);  // holds mutex_
  void UpdateDecoding();                                  // holds mutex_
  void Decode(uint8_t bar, uint64_t address);             // holds mutex_
  void Undecode(uint8_t bar);                             // holds mutex_
  void UpdateMsix();                                      // holds mutex_
  void ResetRegisters();                                  // holds mutex_
  uint16_t ReserveCapability(uint8_t id, size_t size_bytes);

  const EndpointOptions options_;
  const EndpointHost host_;
  std::unique_ptr<Msix> msix_;
  uint16_t msix_capability_ = 0;
  uint16_t express_capability_ = 0;
  uint16_t last_capability_ = 0;
  uint16_t next_free_ = 0;  // where the next capability goes
  std::vector<Handled> handled_;
  LogLimiter log_limiter_;

  mutable std::mutex mutex_;
  ConfigRegisters registers_;               // guarded by mutex_
  std::array<BarState, kBarCount> bars_{};  // guarded by mutex_ from attachment on
};

}  // namespace bothy::pci
