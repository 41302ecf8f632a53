#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/completion.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/output.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {

void AddCompletionVerbs(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(&commands.app(), "completion",
                                          "Print a script that completes bothyctl's command lines",
                                          "  source <(bothyctl completion bash)\n"
                                          "      in ~/.bashrc\n"
                                          "  source <(bothyctl completion zsh)\n"
                                          "      in ~/.zshrc, after compinit\n"
                                          "  bothyctl completion fish | source\n"
                                          "      in ~/.config/fish/config.fish");
  verb->require_subcommand(1);
  for (const char* const shell : {"bash", "zsh", "fish"}) {
    const std::string name = shell;
    CLI::App* const script =
        commands.AddVerb(verb, name, "For " + name,
                         name == "fish" ? "  bothyctl completion fish | source"
                                        : "  source <(bothyctl completion " + name + ")");
    commands.OnVerb(script, [name](const Globals&) {
      return Print(CompletionScript(name)) ? kExitOk : kExitError;
    });
  }
}

}  // namespace bothy::bothyctl
