#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <string>

#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/guest_port.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock connect 5000
      standard input goes to port 5000 of the guest, what it says to standard output
  bothyctl connect --vsock /run/vm1.vsock 5000
      the same without asking the server, by the path the VM was created with
  ssh -o ProxyCommand='bothyctl -a vm.sock connect 22' root@vm1
      where the guest's sshd listens on vsock port 22)";

struct ConnectFlags {
  std::string path;
  uint32_t port = 0;
};

}  // namespace

void AddConnectVerb(CommandLine& commands) {
  CLI::App* const verb =
      commands.AddVerb(&commands.app(), "connect",
                       "Connect standard input and output to a port of the guest", kExamples);
  const auto flags = std::make_shared<ConnectFlags>();
  verb->add_option("port", flags->port, "A vsock port of the guest")->type_name("PORT")->required();
  AddVsockPath(*verb, &flags->path);
  commands.OnVerb(verb, [flags](const Globals& globals) -> int {
    // Who reads standard output may go first.
    (void)std::signal(SIGPIPE, SIG_IGN);
    int status = kExitOk;
    const std::optional<std::string> path = VsockPathOrTell(flags->path, globals, &status);
    if (!path) return status;
    const absl::StatusOr<UniqueFd> socket = ConnectToGuest(*path, flags->port);
    if (!socket.ok()) return Tell("connect", socket.status());
    const absl::Status passed = PassBytes(STDIN_FILENO, STDOUT_FILENO, socket->get());
    return passed.ok() ? kExitOk : Tell("connect", passed);
  });
}

}  // namespace bothy::bothyctl
