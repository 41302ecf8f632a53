// Interrupt lines as devices see them.
//
// A device gets an IrqLine for each line it drives and knows neither the hypervisor nor the
// interrupt controller behind it. Levels are idempotent: setting the level a line already has costs
// nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "support/status.h"

namespace bothy::hypervisor {

// A level on an input (GSI) of the I/O APIC and, below 16, of the PIC. Thread-safe.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  virtual void Set(bool asserted) = 0;
};

}  // namespace bothy::hypervisor
