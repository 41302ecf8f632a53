// Completion of command lines in shells.
//
// The scripts ask bothyctl itself, at each key, what may stand there; it finds that in the
// definition of its verbs and options. So completion is always that of the program at hand.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

namespace bothy::bothyctl {

// The first word of a command line that asks: "bothyctl __complete WORD..." with the words after
// the program's name, the last one being the one to complete, perhaps empty.
inline constexpr char kCompleteWord[] = "__complete";

struct Completion {
  struct Candidate {
    std::string word;         // the whole word
    std::string description;  // one line; may be empty
  };
  std::vector<Candidate> candidates;  // that begin with what is there
  bool files = false;                 // names of files are welcome, too
  // So are nodes of the state tree that begin with this.
  std::optional<std::string> node = std::nullopt;
};

// What may stand for the last of `words`, which must have one.
Completion Complete(const CLI::App& app, const std::vector<std::string>& words);

// As the scripts read it: "word<TAB>description" lines, and a line ":files".
std::string CompletionText(const Completion& completion);

// The script for "bash", "zsh" or "fish", to be read by that shell.
std::string CompletionScript(const std::string& shell);

}  // namespace bothy::bothyctl
