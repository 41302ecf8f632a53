// StateUnit: a part of the machine that runs, can be stopped with nothing in flight, and can be
// reset.
//
// machine/ owns the order: units start in registration order before the vCPUs and stop in reverse
// order after them. Every method is called on the thread that drives the life cycle, never
// concurrently.
#pragma once

#include <string_view>

#include "support/status.h"

namespace bothy {

class StateUnit {
 public:
  virtual ~StateUnit() = default;
  // What it is in logs and inspection: "com1", "rtc", "scsi0".
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Begins or resumes work. Not called twice without a Stop between.
  virtual void Start() = 0;
  // Returns when nothing is in flight: afterwards the unit changes neither guest memory nor any
  // file until the next Start. Input that arrives meanwhile waits.
  virtual void Stop() = 0;
  // Back to the state after power-on. Only called while stopped.
  virtual void Reset() = 0;
};

}  // namespace bothy
