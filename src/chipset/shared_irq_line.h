// SharedIrqLine: several devices on one interrupt input; it is high while any of them asserts it.
//
//   SharedIrqLine irq4(vm_line);
//   Uart16550 com1(..., irq4.NewInput(), ...), com3(..., irq4.NewInput(), ...);
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "hypervisor/interrupts.h"

namespace bothy::chipset {

// Thread-safe.
class SharedIrqLine {
 public:
  explicit SharedIrqLine(std::unique_ptr<hypervisor::IrqLine> output);
  ~SharedIrqLine();
  SharedIrqLine(const SharedIrqLine&) = delete;
  SharedIrqLine& operator=(const SharedIrqLine&) = delete;

  // One device's end, low at first; its destruction lets go of the line. May outlive this object.
  [[nodiscard]] std::unique_ptr<hypervisor::IrqLine> NewInput();

 private:
  class Input;
  struct Output {
    std::mutex mutex;
    std::unique_ptr<hypervisor::IrqLine> line;  // guarded by mutex
    uint32_t asserted_inputs = 0;               // guarded by mutex
  };
  const std::shared_ptr<Output> output_;
};

}  // namespace bothy::chipset
