#include "cmd/bothyctl/command_line.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/completion.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/output.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

std::string Footer(const std::string& examples) { return absl::StrCat("\nExamples:\n", examples); }

constexpr char kExamples[] =
    R"(  bothyctl run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0
      boots a Linux guest in a server of its own and shows its console
  bothyctl -a /run/vm1.sock create --config vm1.json
      builds the VM that vm1.json describes, on a running server, and leaves it paused
  bothyctl -a /run/vm1.sock resume
      starts it
  BOTHY_ADDRESS=/run/vm1.sock bothyctl properties --json
      its state and statistics, for a script

Exit status: 0 done, 1 error, 2 wrong command line; `bothyctl run --help` lists those of run.)";

// Words of CLI11's own messages end with a full stop or a new line here and there.
std::string UsageLine(const CLI::ParseError& error) {
  std::string line = OneLine(error.what());
  while (!line.empty() && (line.back() == '.' || line.back() == ' ')) line.pop_back();
  return line;
}

}  // namespace

CommandLine::CommandLine() : app_("Drives virtual machines of bothy servers.", "bothyctl") {
  app_.footer(Footer(kExamples));
  app_.set_version_flag("--version", "bothyctl " BOTHY_VERSION, "Print the version and exit");
  app_.set_help_flag("-h,--help", "Print this and exit");
  app_.require_subcommand(1);
  // Options of this level may stand behind the verb, too.
  app_.fallthrough();
  app_.add_option("-a,--address", globals_.address, "Unix socket of the server to talk to")
      ->type_name("PATH")
      ->envname("BOTHY_ADDRESS");
  AddDuration(app_, "--timeout", &globals_.timeout,
              "Give a call up after this long: 5, 250ms, 2m; without: never");
  app_.add_flag("--json", globals_.json, "Print answers as JSON");
  AddRunVerb(*this);
  AddCreateVerb(*this);
  AddLifecycleVerbs(*this);
  AddInspectVerb(*this);
  AddCapabilitiesVerb(*this);
  AddPropertiesVerb(*this);
  AddModifyVerb(*this);
  AddSocketVerb(*this);
  AddCompletionVerbs(*this);
}

CLI::App* CommandLine::AddVerb(CLI::App* parent, const std::string& name,
                               const std::string& description, const std::string& examples) {
  CLI::App* const verb = parent->add_subcommand(name, description);
  verb->footer(Footer(examples));
  return verb;
}

void CommandLine::OnVerb(CLI::App* verb, Action action) {
  verb->callback([this, verb, action = std::move(action)] {
    if (verb->get_subcommands().empty()) action_ = action;
  });
}

int CommandLine::Run(int argc, const char* const* argv) {
  if (argc > 1 && argv[1] == std::string_view(kCompleteWord)) {
    // Words that may be anything, such as half an option: not for the parser.
    const std::vector<std::string> words(argv + 2, argv + argc);
    return Print(CompletionText(Complete(app_, words))) ? kExitOk : kExitError;
  }
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Print(app_.help()) ? kExitOk : kExitError;
  } catch (const CLI::CallForVersion&) {
    return Print(absl::StrCat(app_.version(), "\n")) ? kExitOk : kExitError;
  } catch (const CLI::ParseError& error) {
    PrintError(absl::StrCat(UsageLine(error), " (see bothyctl --help)"));
    return kExitUsage;
  }
  return action_(globals_);
}

}  // namespace bothy::bothyctl
