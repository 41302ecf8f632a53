// Hostile port accesses on the whole chipset, with input, time and life-cycle events between them.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for a serial port whose interrupt line disagrees with its registers or that ever makes the
// guest wait, and for lost or invented input.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "chipset/acpi_pm.h"
#include "chipset/bus.h"
#include "chipset/guest_clock.h"
#include "chipset/legacy_ports.h"
#include "chipset/reset_control.h"
#include "chipset/rtc.h"
#include "chipset/serial/uart16550.h"
#include "chipset/shared_irq_line.h"
#include "chipset/testing/fakes.h"
#include "support/check.h"
#include "support/log.h"
#include "support/testing/fuzz_input.h"

namespace bothy::chipset {
namespace {

uint64_t g_host_ns;
uint64_t g_wall_ns;

// Offers an endless count of bytes, each one more than the one before.
class CountingBackend : public SerialBackend {
 public:
  void Transmit(std::span<const uint8_t> bytes) override { CHECK(bytes.size() == 1); }
  void OnReceiveRoom() override {
    CHECK(waits_);
    waits_ = false;
  }
  void Attach(SerialInput* input) override { input_ = input; }

  void Send(size_t size) {
    // As the interface asks: not before there is room again.
    if (waits_) return;
    std::array<uint8_t, 256> bytes;
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(next_ + i);
    const size_t taken = input_->Receive({bytes.data(), size});
    CHECK(taken <= size);
    next_ = static_cast<uint8_t>(next_ + taken);
    waits_ = taken < size;
  }

 private:
  SerialInput* input_ = nullptr;
  uint8_t next_ = 0;
  bool waits_ = false;
};

class Chipset {
 public:
  Chipset() {
    const std::array<std::pair<uint64_t, IoDevice*>, 5> fixed = {
        {{kPmBase, &pm_},
         {kRtcBase, &rtc_},
         {kResetControlPort, &reset_},
         {kKeyboardCommandPort, &keyboard_},
         {0xCF8, &around_}}};
    const std::array<uint64_t, 5> sizes = {kPmSize, kRtcSize, 1, 1, 8};
    for (size_t i = 0; i < fixed.size(); ++i) {
      CHECK_OK(ports_.Register(fixed[i].first, sizes[i], *fixed[i].second));
    }
    CHECK_OK(ports_.Register(kSerialPorts[0].base, kSerialPortSize, com1_));
    CHECK_OK(ports_.Register(kSerialPorts[2].base, kSerialPortSize, com3_));
    clock_.Start();
    for (StateUnit* unit : units_) unit->Start();
  }

  void Run(FuzzInput& operands) {
    enum : uint8_t { kRead, kWrite, kByte, kInput, kTime, kWall, kLifeCycle, kButton, kKinds };
    switch (operands.Take<uint8_t>() % kKinds) {
      case kRead: {
        const uint64_t port = Port(operands);
        std::array<uint8_t, 8> data;
        ports_.Read(port, {data.data(), operands.Take<uint8_t>() % 9u});
        break;
      }
      case kWrite: {
        const uint64_t port = Port(operands);
        const size_t size = operands.Take<uint8_t>() % 9u;
        const auto value = operands.Take<uint64_t>();
        ports_.Write(port, {reinterpret_cast<const uint8_t*>(&value), size});
        break;
      }
      case kByte: {
        // The access that gets furthest.
        const uint64_t port = Port(operands);
        const auto value = operands.Take<uint8_t>();
        ports_.Write(port, {&value, 1});
        break;
      }
      case kInput:
        (operands.Take<uint8_t>() & 1 ? backend3_ : backend1_).Send(operands.Take<uint8_t>());
        break;
      case kTime: {
        const uint64_t ns = operands.Take<uint32_t>();
        g_host_ns += ns;
        g_wall_ns += ns;
        break;
      }
      case kWall:
        // An administrator sets the host's clock: anything from 1970 to 2106.
        g_wall_ns = uint64_t{operands.Take<uint32_t>()} * 1'000'000'000;
        break;
      case kLifeCycle:
        clock_.Stop();
        for (StateUnit* unit : units_) unit->Stop();
        if (operands.Take<uint8_t>() & 1) {
          for (StateUnit* unit : units_) unit->Reset();
        }
        loop_.context().poll_one();
        clock_.Start();
        for (StateUnit* unit : units_) unit->Start();
        break;
      case kButton:
        pm_.PressPowerButton();
        break;
      default:
        break;
    }
    // Timers whose time the fakes hold up would fire forever.
    for (int i = 0; i < 4 && loop_.context().poll_one() != 0; ++i) {
    }
    CheckPort(com1_);
    CheckPort(com3_);
  }

 private:
  // Mostly a port where somebody answers, or one beside.
  static uint64_t Port(FuzzInput& operands) {
    constexpr std::array<uint16_t, 8> kPorts = {0x3F8, 0x3E8, 0x2F8, 0x70, 0x600, 0xCF8, 0x64, 0};
    const auto selector = operands.Take<uint8_t>();
    return uint64_t{kPorts[selector & 7]} + (selector >> 3) % 20 - (selector >> 3) / 20;
  }

  void CheckPort(Uart16550& uart) {
    const Uart16550State state = uart.State();
    CHECK(state.fifo_count <= Uart16550State::kFifoSize);
    CHECK(state.fifo_head < Uart16550State::kFifoSize);
    CHECK(state.interrupt_enable <= 0x0F);
    // Nothing but a register that has no effect when read.
    uint8_t ier;
    if ((state.line_control & 0x80) == 0) {
      uart.Read(1, {&ier, 1});
      CHECK(ier == state.interrupt_enable);
    }
    if (state.line_errors == 0) {
      uint8_t status;
      uart.Read(5, {&status, 1});
      CHECK((status & 0x60) == 0x60);
      CHECK(((status & 1) != 0) == (state.fifo_count != 0));
    }
    const bool wanted = ((state.interrupt_enable & 1) && state.fifo_count != 0) ||
                        ((state.interrupt_enable & 2) && state.transmit_empty_pending) ||
                        ((state.interrupt_enable & 4) && state.line_errors != 0) ||
                        ((state.interrupt_enable & 8) && state.modem_deltas != 0);
    if (wanted) CHECK(irq4_fake_.asserted());
  }

  EventLoop loop_;
  IoBus ports_;
  GuestClock clock_{[] { return g_host_ns; }};
  FakePowerSink power_;
  FakeIrq sci_;
  FakeIrq irq8_;
  FakeIrq irq4_fake_;
  SharedIrqLine irq4_{irq4_fake_.NewLine()};
  CountingBackend backend1_;
  CountingBackend backend3_;
  AcpiPm pm_{loop_, clock_, sci_.NewLine(), power_};
  Rtc rtc_{loop_, clock_, irq8_.NewLine(), [] { return g_wall_ns; }};
  ResetControl reset_{power_};
  KeyboardReset keyboard_{power_};
  // Stands for PCI's ports, in which the reset register lies.
  ResetControl around_{power_};
  Uart16550 com1_{{.name = "com1"}, irq4_.NewInput(), backend1_};
  Uart16550 com3_{{.name = "com3"}, irq4_.NewInput(), backend3_};
  const std::array<StateUnit*, 5> units_ = {&pm_, &rtc_, &reset_, &com1_, &com3_};
};

}  // namespace
}  // namespace bothy::chipset

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
  bothy::chipset::g_host_ns = 0;
  bothy::chipset::g_wall_ns = 1'700'000'000'000'000'000;
  bothy::chipset::Chipset chipset;
  bothy::FuzzInput operands({data, size});
  while (!operands.empty()) chipset.Run(operands);
  return 0;
}
