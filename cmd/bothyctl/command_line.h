// CommandLine: bothyctl's verbs, as CLI11 parses them.
//
// Each verb is a function that adds a subcommand and what it does (verbs.h). Help and completion
// are both made from what is defined here, and nowhere else.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cmd/bothyctl/connection.h"

namespace bothy::bothyctl {

// What a verb does once the command line has been understood; returns the exit status.
using Action = std::function<int(const Globals&)>;

class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // Adds a subcommand of `parent`. `examples` are lines of "command line\n    what it does", shown
  // under its help.
  CLI::App* AddVerb(CLI::App* parent, const std::string& name, const std::string& description,
                    const std::string& examples);
  // Has `verb` do that, unless a subcommand of its is asked for.
  void OnVerb(CLI::App* verb, Action action);

  // Parses and does what was asked for; the exit status. Errors are told on standard error.
  int Run(int argc, const char* const* argv);

  [[nodiscard]] CLI::App& app() { return app_; }

 private:
  CLI::App app_;
  Globals globals_;
  Action action_;
};

}  // namespace bothy::bothyctl
