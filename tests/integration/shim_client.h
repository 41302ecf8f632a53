// The Go program that makes containerd's shim's calls (shim_client/main.go), as tests run it.
#pragma once

#include <string>

#include "tests/integration/program.h"

namespace bothy::integration {

// What it prints on its way to a running VM.
inline constexpr char kShimStepsToResume[] =
    "started\nready\ndialled\ncapabilities\ncreated\nresumed\n";

struct ShimRun {
  std::string socket_path;
  std::string kernel;
  std::string initrd = {};
  std::string command_line = {};
  int memory_mb = 2;
  int processors = 1;
  std::string how;  // "stop": tears the VM down while it runs; "exit": once the guest has ended
};

[[nodiscard]] inline ProgramResult RunShimClient(const ShimRun& run) {
  return RunProgram({BOTHY_SHIM_CLIENT, BOTHY_SERVER, run.socket_path, run.kernel, run.initrd,
                     run.command_line, std::to_string(run.memory_mb),
                     std::to_string(run.processors), run.how});
}

}  // namespace bothy::integration
