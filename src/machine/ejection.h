// Eject: the removal of a function from a hot-plug slot, with an end.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "machine/device_host.h"
#include "pci/root_port.h"
#include "support/status.h"

namespace bothy::machine {

// Asks the guest to let go of what is in the slot of `port`, and calls `done` once, on the thread
// of `changes`, on which this is called, too:
//   OK                the function is on no bus any more
//   DeadlineExceeded  the guest hasn't let go of it in 30 s; the function stays usable
//   Cancelled         `stop` was requested; the same
// `field` is what these begin with, `stays` the name of what does: "the memory".
void Eject(const DeviceHost& host, pci::RootPort& port, const std::string& field,
           const std::string& stays, const std::stop_token& stop,
           const std::function<void(absl::Status)>& done);

}  // namespace bothy::machine
