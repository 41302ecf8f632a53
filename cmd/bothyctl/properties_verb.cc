#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/quantities.h"
#include "cmd/bothyctl/verbs.h"
#include "cmd/bothyctl/vm_state.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::PropertiesVMRequest;
using ::vmservice::PropertiesVMResponse;

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock properties
      state, memory and processor time
  bothyctl -a vm.sock properties memory --json
      only what is known about memory, for a script: sizes in bytes)";

std::string Text(const PropertiesVMResponse& properties) {
  std::string state = StateText(properties.state());
  if (!properties.halt_reason().empty()) absl::StrAppend(&state, ": ", properties.halt_reason());
  std::vector<Row> rows = {{"state", state}};
  if (properties.has_memory_stats()) {
    const auto& memory = properties.memory_stats();
    rows.push_back({"memory assigned", FormatMebibytes(memory.assigned_memory())});
    rows.push_back({"memory resident", FormatMebibytes(memory.working_set_bytes())});
    rows.push_back({"memory reserved", FormatMebibytes(memory.reserved_memory())});
    rows.push_back({"memory available", FormatMebibytes(memory.available_memory())});
  }
  if (properties.has_processor_stats()) {
    const double seconds =
        static_cast<double>(properties.processor_stats().total_runtime_ns()) / 1e9;
    rows.push_back({"processor time", absl::StrFormat("%.3f s", seconds)});
  }
  return Table(rows, /*has_heading=*/false, STDOUT_FILENO);
}

}  // namespace

void AddPropertiesVerb(CommandLine& commands) {
  CLI::App* const verb =
      commands.AddVerb(&commands.app(), "properties",
                       "Show the VM's state and statistics (PropertiesVM)", kExamples);
  using Type = PropertiesVMRequest::PropertiesType;
  const auto request = std::make_shared<PropertiesVMRequest>();
  AddChoices<Type>(
      *verb, "types",
      {{"memory", PropertiesVMRequest::Memory}, {"processor", PropertiesVMRequest::Processor}},
      "Which statistics; without: all", [request](Type type) { request->add_types(type); })
      ->expected(1, 2);
  commands.OnVerb(verb, [request](const Globals& globals) {
    return CallAndPrint<PropertiesVMResponse>(globals, "PropertiesVM",
                                              &::vmservice::VMClient::PropertiesVM, *request, Text);
  });
}

}  // namespace bothy::bothyctl
