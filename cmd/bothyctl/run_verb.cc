#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/host_path.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/run_session.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl run --kernel vmlinuz --initrd initrd.img --cmdline "console=ttyS0 panic=-1"
      boots Linux in a server of its own, with its console here
  bothyctl run --kernel vmlinuz --cmdline "console=ttyS0 root=/dev/sda1" --disk root.vhdx \
      --disk tools.vhd,ro --pmem data.img
      with a root file system on a SCSI disk, another one, and persistent memory
  bothyctl run --kernel vmlinuz --cmdline console=ttyS0 --nic user,forward=tcp:2222:22 \
      --nic switch=br0,mac=02-34-56-78-9A-BC
      with two network cards: NAT with the host's port 2222 leading to SSH, and a port of br0
  bothyctl run --config vm1.json --memory 4G --timeline
      the VM of vm1.json with more memory; shows how long each step of its start took
  bothyctl run --kernel vmlinuz --cmdline console=ttyS0 </dev/null >console.log
      unattended, for a script
  bothyctl -a /run/vm1.sock run --config vm1.json
      in a server that runs already, and goes on running

Keys: Ctrl-] and then q ends the VM, p pauses and resumes it, z suspends bothyctl, ? lists them.

Exit status: 0 the guest powered off, or Ctrl-] q ended it; 1 error; 2 wrong command line;
3 the guest crashed (triple fault); 4 it was reset, as by a kernel panic with panic=-1;
5 another client tore the VM down; 128 and more: ended by a signal, of number status - 128.)";

struct RunFlags {
  VmFlags vm;
  RunOptions options;
  std::optional<std::string> log_level;
};

int Run(const Globals& globals, RunFlags flags) {
  auto request = BuildCreateRequest(flags.vm);
  if (!request.ok()) return Tell("run", request.status());
  const auto port = TerminalPort(flags.vm, request->config());
  if (!port.ok()) {
    PrintError(OneLine(std::string(port.status().message())));
    return kExitUsage;
  }
  if (!globals.address.empty() && (!flags.options.server.empty() || flags.log_level ||
                                   !flags.options.server_log_file.empty())) {
    PrintError(
        "run: --server, --log-level and --server-log are for a server that run starts; "
        "--address names one that runs");
    return kExitUsage;
  }
  RunOptions options = std::move(flags.options);
  options.globals = globals;
  options.request = *std::move(request);
  options.terminal_port = *port;
  if (flags.log_level) options.server_log_level = *flags.log_level;
  if (!options.terminal_port) {
    for (const auto& serial : options.request.config().serial_config().ports()) {
      if (serial.port() != 0) continue;
      PrintError(OneLine(absl::StrCat("the guest's console is at ", serial.socket_path())));
    }
  }
  return RunSession(std::move(options)).Run();
}

}  // namespace

void AddRunVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(
      &commands.app(), "run",
      "Start a server, boot a VM with its console on this terminal, and wait for its end",
      kExamples);
  const auto flags = std::make_shared<RunFlags>();
  AddVmFlags(*verb, &flags->vm);
  RunOptions& options = flags->options;
  AddParsed<std::optional<char>>(
      *verb, "--escape", "The key that bothyctl keeps for itself: ^], ctrl-a, none; without: ^]",
      ParseEscapeKey, [flags](std::optional<char> key) { flags->options.escape_key = key; })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->type_name("KEY");
  verb->add_option("--server", options.server,
                   "The server to start; without: the bothy beside bothyctl, else that in $PATH")
      ->type_name("FILE");
  const Choices<std::string> levels = {
      {"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}};
  AddChoice(*verb, "--log-level", &flags->log_level, levels,
            "What the server logs; without: error");
  verb->add_option("--server-log", options.server_log_file,
                   "Append the server's log to this file; without: it comes on standard error")
      ->type_name("FILE");
  verb->add_flag("--timeline", options.timeline,
                 "At the end, show when each step of the start was reached (JSON with --json)");
  CLI::Option* const timeline_file =
      verb->add_option("--timeline-file", options.timeline_file,
                       "Write the timeline to this file; without: to standard error")
          ->type_name("FILE");
  verb->add_option("--timeline-init", options.timeline_init,
                   "What the guest's init prints first: a text, after ^ only at the beginning of a "
                   "line; without: \"^bothy-guest: init\"")
      ->type_name("PATTERN")
      ->check([](const std::string& pattern) {
        return pattern.empty() || pattern == "^" ? std::string("the pattern is empty") : "";
      });
  commands.OnVerb(verb, [flags, timeline_file](const Globals& globals) {
    if (timeline_file->count() > 0) flags->options.timeline = true;
    return Run(globals, *flags);
  });
}

}  // namespace bothy::bothyctl
