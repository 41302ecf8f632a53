#include "cmd/bothyctl/completion.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/error_text.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

bool Hidden(const CLI::App& app) { return app.get_group().empty() || app.get_name().empty(); }

std::vector<const CLI::App*> Verbs(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* verb) { return !Hidden(*verb); });
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// Where a command line has got to before the word that is to be completed.
struct Position {
  const CLI::App* verb;
  size_t positionals = 0;               // of the verb that have been given
  const CLI::Option* awaits = nullptr;  // a value of this option is next
  bool only_positionals = false;        // after "--"
};

const CLI::Option* FindOption(const CLI::App& verb, const std::string& word) {
  // Options of the levels above may stand behind a verb, too.
  for (const CLI::App* app = &verb; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) {
      if (option->nonpositional() && option->check_name(word)) return option;
    }
  }
  return nullptr;
}

Position Walk(const CLI::App& app, const std::vector<std::string>& words) {
  Position at{.verb = &app};
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (at.awaits != nullptr) {
      at.awaits = nullptr;
      continue;
    }
    if (!at.only_positionals && word == "--") {
      at.only_positionals = true;
      continue;
    }
    if (!at.only_positionals && word.size() > 1 && word[0] == '-') {
      if (word.find('=') != std::string::npos) continue;
      const CLI::Option* const option = FindOption(*at.verb, word);
      if (option != nullptr && TakesValue(*option)) at.awaits = option;
      continue;
    }
    const auto verbs = Verbs(*at.verb);
    const auto verb = std::find_if(verbs.begin(), verbs.end(),
                                   [&](const CLI::App* v) { return v->get_name() == word; });
    if (verb != verbs.end()) {
      at.verb = *verb;
      at.positionals = 0;
    } else {
      ++at.positionals;
    }
  }
  return at;
}

// The words that a type's name lists, as "{add,remove}".
std::vector<std::string> ChoicesOf(const std::string& type) {
  std::vector<std::string> choices;
  if (type.size() < 2 || type.front() != '{' || type.back() != '}') return choices;
  std::string word;
  for (const char c : std::string_view(type).substr(1)) {
    if (c == ',' || c == '}') {
      choices.push_back(std::exchange(word, {}));
    } else {
      word += c;
    }
  }
  return choices;
}

// `before` is what of the word precedes the value ("--type="), `value` what there is of it.
void CompleteValue(const CLI::Option& option, const std::string& before, const std::string& value,
                   Completion* completion) {
  const std::string type = option.get_type_name();
  for (const std::string& choice : ChoicesOf(type)) {
    if (choice.starts_with(value)) completion->candidates.push_back({before + choice, ""});
  }
  if (type == "NODE") completion->node = value;
  if (type == "FILE" || type.starts_with("PATH") ||
      (type.starts_with("PORT=PATH") && value.find('=') != std::string::npos)) {
    completion->files = true;
  }
}

void CompleteOptionName(const CLI::App& verb, const std::string& word, Completion* completion) {
  for (const CLI::App* app = &verb; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) {
      if (!option->nonpositional() || option->get_group().empty()) continue;
      // Those of this kind end a command line rather than refine it: once is enough.
      if (app != &verb && (option == app->get_help_ptr() || option == app->get_version_ptr())) {
        continue;
      }
      for (const std::string& name : option->get_lnames()) {
        if (const std::string full = "--" + name; full.starts_with(word)) {
          completion->candidates.push_back({full, OneLine(option->get_description())});
        }
      }
    }
  }
}

}  // namespace

Completion Complete(const CLI::App& app, const std::vector<std::string>& words) {
  Completion completion;
  if (words.empty()) return completion;
  const Position at = Walk(app, words);
  const std::string& word = words.back();
  if (at.awaits != nullptr) {
    CompleteValue(*at.awaits, "", word, &completion);
    return completion;
  }
  if (!at.only_positionals && word.starts_with('-')) {
    if (const size_t equals = word.find('='); equals != std::string::npos) {
      const CLI::Option* const option = FindOption(*at.verb, word.substr(0, equals));
      if (option != nullptr && TakesValue(*option)) {
        CompleteValue(*option, word.substr(0, equals + 1), word.substr(equals + 1), &completion);
      }
    } else {
      CompleteOptionName(*at.verb, word, &completion);
    }
    return completion;
  }
  for (const CLI::App* verb : Verbs(*at.verb)) {
    if (verb->get_name().starts_with(word)) {
      completion.candidates.push_back({verb->get_name(), OneLine(verb->get_description())});
    }
  }
  size_t positional = 0;
  for (const CLI::Option* option : at.verb->get_options()) {
    if (!option->get_positional()) continue;
    // The last takes all that follow, if it takes several.
    const auto takes = static_cast<size_t>(std::max(option->get_items_expected_max(), 1));
    if (at.positionals < positional + takes) {
      CompleteValue(*option, "", word, &completion);
      break;
    }
    positional += takes;
  }
  return completion;
}

std::string CompletionText(const Completion& completion) {
  std::string text;
  for (const auto& [word, description] : completion.candidates) {
    absl::StrAppend(&text, word, "\t", description, "\n");
  }
  if (completion.files) text += ":files\n";
  return text;
}

std::string CompletionScript(const std::string& shell) {
  if (shell == "bash") {
    return R"(# bash completion of bothyctl: source <(bothyctl completion bash)
_bothyctl() {
  # Readline has cut the line at "=" and ":", too; what it replaces is what comes after the last.
  local words=() word glued='' i
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if ((${#words[@]})) && [[ $word == [=:] || $glued ]]; then
      words[-1]+=$word
      [[ $word == [=:] ]] && glued=1 || glued=
    else
      words+=("$word")
    fi
  done
  local whole=${words[-1]-} part=${COMP_WORDS[COMP_CWORD]} line candidate files=
  [[ $part == [=:] ]] && part=
  local before=${whole%"$part"}
  COMPREPLY=()
  while IFS= read -r line; do
    candidate=${line%%$'\t'*}
    # There is more to say behind a folder.
    [[ $candidate == */ ]] && compopt -o nospace
    if [[ $line == :files ]]; then files=1; else COMPREPLY+=("${candidate#"$before"}"); fi
  done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
  if [[ $files ]]; then
    compopt -o filenames
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$part")
  fi
}
complete -F _bothyctl bothyctl
)";
  }
  if (shell == "zsh") {
    return R"(#compdef bothyctl
# zsh completion of bothyctl: source <(bothyctl completion zsh), after compinit
_bothyctl() {
  local -a candidates folders
  local line files=
  for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    if [[ $line == :files ]]; then
      files=1
    elif [[ ${line%%$'\t'*} == */ ]]; then
      folders+=("${line%%$'\t'*}")
    elif [[ -n $line ]]; then
      candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    fi
  done
  (( $#folders )) && compadd -S '' -a folders
  (( $#candidates )) && _describe -V bothyctl candidates
  if [[ -n $files ]]; then
    compset -P '*='
    _files
  fi
}
compdef _bothyctl bothyctl
)";
  }
  CHECK(shell == "fish");
  return R"(# fish completion of bothyctl: bothyctl completion fish | source
function __bothyctl_complete
    set -l words (commandline -opc)
    set -l part (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$part" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path $part
        else
            printf '%s\n' $line
        end
    end
end
complete -c bothyctl -f -a '(__bothyctl_complete)'
)";
}

}  // namespace bothy::bothyctl
