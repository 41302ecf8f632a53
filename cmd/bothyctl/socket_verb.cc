#include <charconv>
#include <memory>
#include <optional>
#include <string>

#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/host_path.h"
#include "cmd/bothyctl/modify_type.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock socket add 5000 /run/agent.sock
      guest connections to vsock port 5000 of the host reach /run/agent.sock
  bothyctl -a vm.sock socket remove 5000
      new connections are refused; live ones stay
  bothyctl -a vm.sock socket add 00001388-facb-11e6-bd58-64006a7986d3 /run/agent.sock
      the same port by its Hyper-V service id)";

struct SocketFlags {
  std::optional<::vmservice::ModifyType> type;
  std::string port;
  std::string listener;
};

::vmservice::VMSocketRequest Request(const SocketFlags& flags) {
  ::vmservice::VMSocketRequest request;
  request.set_type(*flags.type);
  uint32_t port = 0;
  const char* const end = flags.port.data() + flags.port.size();
  const auto number = std::from_chars(flags.port.data(), end, port);
  if (number.ec == std::errc() && number.ptr == end) {
    request.mutable_vsock_listen()->set_port(port);
    request.mutable_vsock_listen()->set_listener_path(AbsolutePath(flags.listener));
  } else {
    request.mutable_hvsocket_list()->set_service_id(flags.port);
    request.mutable_hvsocket_list()->set_listener_path(AbsolutePath(flags.listener));
  }
  return request;
}

}  // namespace

void AddSocketVerb(CommandLine& commands) {
  CLI::App* const verb =
      commands.AddVerb(&commands.app(), "socket",
                       "Tie a port of the guest's sockets to a Unix socket (VMSocket)", kExamples);
  const auto flags = std::make_shared<SocketFlags>();
  AddChoice(*verb, "change", &flags->type, ModifyTypes(), "What to do")->required();
  verb->add_option("port", flags->port, "A vsock port, or a Hyper-V service id (GUID)")
      ->type_name("PORT")
      ->required();
  verb->add_option("listener", flags->listener, "Unix socket that somebody listens on")
      ->type_name("PATH");
  commands.OnVerb(verb, [flags](const Globals& globals) {
    return CallAndPrint(globals, "VMSocket", &::vmservice::VMClient::VMSocket, Request(*flags));
  });
}

}  // namespace bothy::bothyctl
