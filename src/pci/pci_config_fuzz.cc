// A hostile guest on configuration space, BARs, MSI-X and slots, with devices that come and go in
// between.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for doorbells that aren't where their BAR is, devices that answer though nothing is plugged
// in, removals that end twice or never, and slots that lie about what is in them.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hypervisor/testing/fake_vm.h"
#include "pci/endpoint.h"
#include "pci/host_bridge.h"
#include "pci/root_complex.h"
#include "pci/root_port.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/log.h"
#include "support/testing/fuzz_input.h"

namespace bothy::pci {
namespace {

constexpr uint64_t kEcam = 0xE000'0000;
constexpr uint8_t kPorts = 3;
constexpr uint64_t kDoorbellOffset = 0x3000;
// Never opened: nothing here is rung.
constexpr int kDoorbellFd = 1'000'000;

class Memory final : public chipset::IoDevice {
 public:
  void Read(uint64_t offset, std::span<uint8_t> data) override {
    CHECK(offset + data.size() <= 0x4000);
    std::fill(data.begin(), data.end(), uint8_t{0xA5});
  }
  void Write(uint64_t offset, std::span<const uint8_t> data) override {
    CHECK(offset + data.size() <= 0x4000);
  }
};

// Something to plug in.
struct Card {
  explicit Card(const EndpointHost& host)
      : function({.name = "card",
                  .ids = {.vendor = 0x1AF4, .device = 0x1041, .class_code = 0x010000},
                  .on_bus_reset = [this] { ++bus_resets; }},
                 host) {
    function.AddBar(0, {.size_bytes = 0x8000});
    function.AddBar(2, {.size_bytes = 0x1000, .is_64_bit = false, .prefetchable = false});
    function.AddRegion(0, 0, 0x4000, memory);
    function.AddRegion(2, 0, 0x1000, memory);
    function.AddDoorbell(0, kDoorbellOffset, kDoorbellFd);
    function.AddMsix(0, {.vectors = 5, .table_offset = 0x4000, .pending_offset = 0x5000});
  }
  Memory memory;
  int bus_resets = 0;
  Endpoint function;
};

class Machine {
 public:
  Machine() : integrated_({.vm = vm_, .mmio = mmio_}) {
    CHECK_OK(io_ports_.Register(kConfigPortsBase, kConfigPortsSize, complex_.config_ports()));
    CHECK_OK(mmio_.Register(kEcam, (kPorts + 1) * memory::kEcamBusSize, complex_.ecam()));
    CHECK_OK(complex_.root_bus().Attach({0, 0}, bridge_));
    integrated_.function.SetBarAtReset(0, 0x1'0000'0000);
    CHECK_OK(complex_.root_bus().Attach({1, 0}, integrated_.function));
    for (uint8_t i = 0; i < kPorts; ++i) {
      slots_[i].port = std::make_unique<RootPort>(
          RootPortOptions{.slot = static_cast<uint16_t>(i + 1),
                          .bus = static_cast<uint8_t>(i + 1),
                          .memory_window = {0xC000'0000 + i * 2 * memory::kMiB, 2 * memory::kMiB},
                          .prefetchable_window = {0x2'0000'0000, 0},
                          .multifunction = true},
          vm_);
      CHECK_OK(complex_.AttachPort({2, i}, *slots_[i].port));
    }
  }

  void Step(FuzzInput& operands) {
    switch (operands.Take<uint8_t>() % 9) {
      case 0:
        return Access(mmio_,
                      kEcam + operands.Take<uint32_t>() % (kPorts + 1) * memory::kMiB +
                          operands.Take<uint16_t>() % 0x100,
                      operands);
      case 1: {
        // Where something is: a function on a bus, a register.
        const uint64_t bus = operands.Take<uint8_t>() % (kPorts + 1);
        const uint64_t device = operands.Take<uint8_t>() % 3;
        const uint64_t function = operands.Take<uint8_t>() % 4;
        return Access(
            mmio_, kEcam + (bus << 20 | device << 15 | function << 12 | operands.Take<uint8_t>()),
            operands);
      }
      case 2:
        return Access(io_ports_, kConfigPortsBase + operands.Take<uint8_t>() % 8, operands);
      case 3: {
        // Where a BAR is.
        Card* card = Pick(operands.Take<uint8_t>());
        const uint64_t offset = operands.Take<uint16_t>() % 0x8000;
        if (card == nullptr) return;
        return Access(mmio_, card->function.bars()[0].address + offset, operands);
      }
      case 4: {
        Card* card = Pick(operands.Take<uint8_t>());
        const uint16_t vector = operands.Take<uint8_t>() % 5;
        if (card != nullptr) card->function.msix_vector(vector).Signal();
        return;
      }
      case 5:
        return Plug(slots_[operands.Take<uint8_t>() % kPorts]);
      case 6:
        return Remove(slots_[operands.Take<uint8_t>() % kPorts]);
      case 7:
        return Cancel(slots_[operands.Take<uint8_t>() % kPorts]);
      case 8:
        // Rare, as it undoes all that the input has built.
        if (operands.Take<uint8_t>() != 0) return;
        complex_.Reset();
        for (Slot& slot : slots_) {
          CHECK(!slot.pending);
          CHECK(slot.card == nullptr || !slot.card->function.bars()[0].decoded);
        }
        return;
    }
  }

  void CheckAll() {
    std::vector<uint64_t> expected;
    const auto add = [&](const Card& card) {
      const Endpoint::Bar bar = card.function.bars()[0];
      if (bar.decoded) expected.push_back(bar.address + kDoorbellOffset);
    };
    add(integrated_);
    for (Slot& slot : slots_) {
      CHECK((slot.card != nullptr) == slot.port->occupied());
      const bool present = (slot.port->ReadConfig(0x58) & 1U << 22) != 0;
      CHECK(present == (slot.card != nullptr));
      if (slot.card != nullptr) add(*slot.card);
    }
    std::sort(expected.begin(), expected.end());
    std::vector<uint64_t> attached;
    for (const auto& doorbell : vm_.doorbells()) attached.push_back(doorbell.guest_physical);
    CHECK(attached == expected);
  }

  // Whatever the guest has done, the host gets its device back when the guest is reset.
  void End() {
    for (Slot& slot : slots_) Remove(slot);
    complex_.Reset();
    for (Slot& slot : slots_) CHECK(slot.card == nullptr);
    CheckAll();
  }

 private:
  struct Slot {
    std::unique_ptr<Card> card;
    bool pending = false;
    std::unique_ptr<RootPort> port;
  };

  Card* Pick(uint8_t choice) {
    if (choice % (kPorts + 1) == kPorts) return &integrated_;
    return slots_[choice % (kPorts + 1)].card.get();
  }

  static void Access(chipset::IoBus& bus, uint64_t address, FuzzInput& operands) {
    constexpr size_t kSizes[] = {1, 2, 4, 8};
    const auto kind = operands.Take<uint8_t>();
    std::array<uint8_t, 8> bytes{};
    const std::span<uint8_t> data = std::span(bytes).first(kSizes[kind % 4]);
    if ((kind & 4) != 0) {
      bus.Read(address, data);
    } else {
      StoreLe(bytes.data(), operands.Take<uint64_t>());
      bus.Write(address, data);
    }
  }

  void Plug(Slot& slot) {
    if (slot.card != nullptr) {
      CHECK(!slot.port->Plug(slot.card->function).ok());
      return;
    }
    slot.card = std::make_unique<Card>(EndpointHost{.vm = vm_, .mmio = mmio_});
    CHECK_OK(slot.port->Plug(slot.card->function));
  }

  void Remove(Slot& slot) {
    const bool possible = slot.card != nullptr && !slot.pending;
    if (possible) slot.pending = true;
    const absl::Status status = slot.port->RequestRemoval([&slot](const absl::Status& outcome) {
      CHECK(slot.pending);
      slot.pending = false;
      if (!outcome.ok()) return;
      // Taken out: nothing of it answers any more.
      CHECK(slot.card->bus_resets > 0);
      for (const Endpoint::Bar& bar : slot.card->function.bars()) CHECK(!bar.decoded);
      slot.card.reset();
    });
    CHECK(status.ok() == possible);
  }

  static void Cancel(Slot& slot) {
    const bool was_pending = slot.pending;
    CHECK(slot.port->CancelRemoval(absl::CancelledError("")) == was_pending);
    CHECK(!slot.pending);
  }

  hypervisor::testing::FakeVm vm_;
  chipset::IoBus io_ports_;
  chipset::IoBus mmio_;
  Card integrated_;
  std::array<Slot, kPorts> slots_;
  HostBridge bridge_{{kEcam, (kPorts + 1) * memory::kEcamBusSize}};
  RootComplex complex_;
};

}  // namespace
}  // namespace bothy::pci

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
  bothy::FuzzInput operands({data, size});
  bothy::pci::Machine machine;
  while (!operands.empty()) {
    machine.Step(operands);
    machine.CheckAll();
  }
  machine.End();
  return 0;
}
