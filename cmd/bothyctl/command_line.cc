#include "cmd/bothyctl/command_line.h"

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/completion.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/help_format.h"
#include "cmd/bothyctl/node_completion.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/output.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

std::string Footer(const std::string& examples) { return absl::StrCat("Examples:\n", examples); }

constexpr char kGlobalOptions[] =
    "Options of every command, such as --address and --json: bothyctl --help\n\n";

constexpr char kExamples[] =
    R"(  bothyctl run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0
      boots a Linux guest in a server of its own and shows its console
  bothyctl -a /run/vm1.sock create --config vm1.json
      builds the VM that vm1.json describes, on a running server, and leaves it paused
  bothyctl -a /run/vm1.sock resume
      starts it
  BOTHY_ADDRESS=/run/vm1.sock bothyctl properties --json
      its state and statistics, for a script
  bothyctl disk create root.vhdx 20G
      an empty disk image; `bothyctl disk --help` lists what else can be done with images

Exit status: 0 done, 1 error, 2 wrong command line; `bothyctl run --help` lists those of run.)";

// The names that may follow `app`, for its error messages.
std::string VerbNames(const CLI::App& app) {
  std::string names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", verb->get_name());
  }
  return names;
}

// What is wrong with the command line, in one line that says where to read on.
std::string UsageLine(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* verb = &app;
  std::string name = app.get_name();
  while (!verb->get_subcommands().empty()) {
    verb = verb->get_subcommands().front();
    absl::StrAppend(&name, " ", verb->get_name());
  }
  std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  // What stands behind it is a word, whatever it looks like.
  const bool words = !unknown.empty() && unknown.front() == "--";
  if (words) unknown.erase(unknown.begin());
  const std::string names = VerbNames(*verb);
  std::string line;
  if (!words && !unknown.empty() && unknown.front().starts_with('-')) {
    line = "unknown option: " + unknown.front();
  } else if (!unknown.empty() && !names.empty()) {
    line = absl::StrCat("\"", unknown.front(), "\" is none of ", names);
  } else if (!unknown.empty()) {
    line = "unexpected word: " + unknown.front();
  } else if (verb->get_require_subcommand_min() > 0) {
    line = "give one of " + names;
  } else {
    line = OneLine(error.what());
    while (line.ends_with('.') || line.ends_with(' ')) line.pop_back();
  }
  return absl::StrCat(OneLine(line), " (see ", name, " --help)");
}

}  // namespace

CommandLine::CommandLine() : app_("Drives virtual machines of bothy servers.", "bothyctl") {
  app_.formatter(std::make_shared<HelpFormat>());
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
  AddTopVerb(*this);
  AddCapabilitiesVerb(*this);
  AddPropertiesVerb(*this);
  AddModifyVerb(*this);
  AddSocketVerb(*this);
  AddConnectVerb(*this);
  AddForwardVerb(*this);
  AddDiskVerbs(*this);
  AddCompletionVerbs(*this);
}

CLI::App* CommandLine::AddVerb(CLI::App* parent, const std::string& name,
                               const std::string& description, const std::string& examples) {
  CLI::App* const verb = parent->add_subcommand(name, description);
  verb->footer(absl::StrCat(kGlobalOptions, Footer(examples)));
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
    Completion completion = Complete(app_, words);
    if (completion.node) {
      completion.candidates = CompleteNodes(ServerOf(words), *completion.node);
    }
    return Print(CompletionText(completion)) ? kExitOk : kExitError;
  }
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Print(app_.help()) ? kExitOk : kExitError;
  } catch (const CLI::CallForVersion&) {
    return Print(absl::StrCat(app_.version(), "\n")) ? kExitOk : kExitError;
  } catch (const CLI::ParseError& error) {
    PrintError(UsageLine(app_, error));
    return kExitUsage;
  }
  return action_(globals_);
}

}  // namespace bothy::bothyctl
