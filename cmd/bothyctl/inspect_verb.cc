#include <charconv>
#include <limits>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/value_tree.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock inspect
      the names and values at the root; folders end with "/"
  bothyctl -a vm.sock inspect chipset/com1 --depth all
      everything below that path
  bothyctl -a vm.sock inspect processors --depth 1 --json
      for a script)";

absl::StatusOr<uint32_t> ParseDepth(std::string_view text) {
  if (text == "all") return std::numeric_limits<uint32_t>::max();
  uint32_t depth = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), depth);
  if (error == std::errc() && end == text.data() + text.size()) return depth;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(text), "\" is neither a number of levels nor \"all\""));
}

}  // namespace

void AddInspectVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(
      &commands.app(), "inspect", "Show a part of the VM's state tree (InspectVM)", kExamples);
  const auto request = std::make_shared<::vmservice::InspectVMRequest>();
  verb->add_option_function<std::string>(
          "path", [request](const std::string& path) { request->set_query(path); },
          "A path from the root, names separated by /; without: the root")
      ->type_name("NODE");
  AddParsed<uint32_t>(
      *verb, "--depth", "Levels below that node to fill in, or \"all\"; without: 0, its own values",
      ParseDepth, [request](uint32_t depth) { request->set_recursion_limit(depth); })
      ->type_name("N");
  commands.OnVerb(verb, [request](const Globals& globals) -> int {
    int status = kExitOk;
    std::optional<Connection> connection = ConnectOrTell(globals, &status);
    if (!connection) return status;
    const auto response = connection->vm().InspectVM(*request, globals.CallOptions());
    if (!response.ok()) return Tell("InspectVM", response.status());
    return PrintAnswer<google::protobuf::Value>(globals, response->result(), ValueTreeText);
  });
}

}  // namespace bothy::bothyctl
