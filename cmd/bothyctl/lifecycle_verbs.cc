#include <string>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/verbs.h"
#include "cmd/bothyctl/vm_state.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Empty;
using ::vmservice::VMClient;
using EmptyCall = absl::StatusOr<Empty> (VMClient::*)(const Empty&, const ttrpc::CallOptions&);

void AddEmptyCall(CommandLine& commands, const char* name, const char* method, EmptyCall call,
                  const char* description, const char* examples) {
  CLI::App* const verb = commands.AddVerb(&commands.app(), name, description, examples);
  commands.OnVerb(verb, [method, call](const Globals& globals) {
    return CallAndPrint(globals, method, call, Empty());
  });
}

// WaitVM, and then what the wait was for: its answer doesn't say.
int Wait(const Globals& globals) {
  int status = kExitOk;
  std::optional<Connection> connection = ConnectOrTell(globals, &status);
  if (!connection) return status;
  const auto waited = connection->vm().WaitVM({}, globals.CallOptions());
  if (!waited.ok()) return Tell("WaitVM", waited.status());
  ::vmservice::PropertiesVMRequest request;
  request.add_types(::vmservice::PropertiesVMRequest::Processor);
  const auto properties = connection->vm().PropertiesVM(request, globals.CallOptions());
  // A server that ends with its VM needn't answer any more; the wait is over all the same.
  const std::string state = properties.ok() ? StateText(properties->state()) : "gone";
  const std::string reason = properties.ok() ? properties->halt_reason() : "";
  if (globals.json) {
    return Print(absl::StrCat("{\"state\": ", JsonString(state),
                              ", \"halt_reason\": ", JsonString(reason), "}\n"))
               ? kExitOk
               : kExitError;
  }
  return Print(absl::StrCat(state, reason.empty() ? "" : ": ", OneLine(reason), "\n")) ? kExitOk
                                                                                       : kExitError;
}

}  // namespace

void AddLifecycleVerbs(CommandLine& commands) {
  AddEmptyCall(commands, "resume", "ResumeVM", &VMClient::ResumeVM,
               "Start a created VM, or let a paused one go on (ResumeVM)",
               "  bothyctl -a vm.sock resume\n      starts or resumes the VM");
  AddEmptyCall(commands, "pause", "PauseVM", &VMClient::PauseVM, "Pause the VM (PauseVM)",
               "  bothyctl -a vm.sock pause\n"
               "      returns when nothing in the VM moves any more");
  CLI::App* const wait = commands.AddVerb(
      &commands.app(), "wait", "Wait until the guest has halted or the VM is gone (WaitVM)",
      "  bothyctl -a vm.sock wait\n"
      "      prints how it ended: \"halted: power-off\"\n"
      "  bothyctl -a vm.sock wait --timeout 30s\n"
      "      gives up after half a minute, with exit status 1");
  commands.OnVerb(wait, Wait);
  AddEmptyCall(commands, "teardown", "TeardownVM", &VMClient::TeardownVM,
               "Free the VM in whatever state it is (TeardownVM)",
               "  bothyctl -a vm.sock teardown\n"
               "      afterwards the server can create another VM");
  AddEmptyCall(commands, "quit", "Quit", &VMClient::Quit, "End the server and its VM (Quit)",
               "  bothyctl -a vm.sock quit\n      the server removes its socket and exits");
}

}  // namespace bothy::bothyctl
