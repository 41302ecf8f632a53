// What bothyctl's exit status says; docs/bothyctl.md lists these for users.
#pragma once

namespace bothy::bothyctl {

enum ExitCode : int {
  kExitOk = 0,            // done; for `run`: the guest powered off, or the user ended it
  kExitError = 1,         // the server refused, died or couldn't be reached; or a file here
  kExitUsage = 2,         // the command line
  kExitGuestCrashed = 3,  // `run`: triple fault or emulation failure
  kExitGuestReset = 4,    // `run`: a reset that means halt, as after a kernel panic
  kExitTornDown = 5,      // `run`: somebody else tore the VM down
  kExitProblems = 6,      // `disk check`: the image has problems; repair may be needed
  kExitSignal = 128,      // `run`, `disk`: plus the number of the signal that ended it
};

}  // namespace bothy::bothyctl
