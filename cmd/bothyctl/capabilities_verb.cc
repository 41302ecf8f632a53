#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::CapabilitiesVMResponse;

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock capabilities
      what can be added to, removed from and changed in a running VM here
  bothyctl -a vm.sock capabilities --json
      the same for a script)";

std::string Text(const CapabilitiesVMResponse& capabilities) {
  const auto word = [](bool yes) { return yes ? "yes" : "no"; };
  std::vector<Row> rows = {{"resource", "add", "remove", "update"}};
  for (const auto& resource : capabilities.supported_resources()) {
    std::string name = CapabilitiesVMResponse::Resource_Name(resource.resource());
    if (name.empty()) name = absl::StrCat("resource ", static_cast<int>(resource.resource()));
    rows.push_back({absl::AsciiStrToLower(name), word(resource.add()), word(resource.remove()),
                    word(resource.update())});
  }
  std::string guests;
  for (int i = 0; i < capabilities.supported_guest_os_size(); ++i) {
    const auto guest = capabilities.supported_guest_os(i);
    std::string name = CapabilitiesVMResponse::SupportedGuestOS_Name(guest);
    if (name.empty()) name = absl::StrCat("guest ", static_cast<int>(guest));
    absl::StrAppend(&guests, guests.empty() ? "" : ", ", name);
  }
  return absl::StrCat(Table(rows, /*has_heading=*/true, STDOUT_FILENO),
                      "guests: ", guests.empty() ? "none" : guests, "\n");
}

}  // namespace

void AddCapabilitiesVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(
      &commands.app(), "capabilities", "Show what the server supports (CapabilitiesVM)", kExamples);
  commands.OnVerb(verb, [](const Globals& globals) {
    return CallAndPrint<CapabilitiesVMResponse>(globals, "CapabilitiesVM",
                                                &::vmservice::VMClient::CapabilitiesVM,
                                                google::protobuf::Empty(), Text);
  });
}

}  // namespace bothy::bothyctl
