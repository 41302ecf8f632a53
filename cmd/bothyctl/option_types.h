// Options of the command line whose values have a grammar of their own.
//
// CLI11 reports a bad value by an exception inside its own parsing; these turn a parser that
// returns StatusOr into that, so that it is told as any other misuse: on one line, exit status 2.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/quantities.h"
#include "support/status.h"

namespace bothy::bothyctl {

// An option that may be given any number of times; `take` gets each value that `parse` accepts.
template <typename T>
CLI::Option* AddParsed(CLI::App& app, const std::string& name, const std::string& description,
                       std::function<absl::StatusOr<T>(std::string_view)> parse,
                       std::function<void(T)> take) {
  return app
      .add_option(
          name,
          [name, parse = std::move(parse), take = std::move(take)](const CLI::results_t& values) {
            for (const std::string& text : values) {
              absl::StatusOr<T> value = parse(text);
              if (!value.ok()) {
                throw CLI::ValidationError(name, OneLine(std::string(value.status().message())));
              }
              take(*std::move(value));
            }
            return true;
          },
          description)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

// An amount of memory in MiB (ParseMebibytes).
inline CLI::Option* AddMebibytes(CLI::App& app, const std::string& name,
                                 std::optional<uint64_t>* value, const std::string& description) {
  return AddParsed<uint64_t>(app, name, description, ParseMebibytes,
                             [value](uint64_t mebibytes) { *value = mebibytes; })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->type_name("SIZE");
}

// A length of time (ParseDuration).
inline CLI::Option* AddDuration(CLI::App& app, const std::string& name,
                                std::optional<std::chrono::nanoseconds>* value,
                                const std::string& description) {
  return AddParsed<std::chrono::nanoseconds>(
             app, name, description, ParseDuration,
             [value](std::chrono::nanoseconds duration) { *value = duration; })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->type_name("TIME");
}

// Words for values. The type's name lists them, as "{halt,restart}": help and completion both read
// it there.
template <typename T>
using Choices = std::map<std::string, T>;

template <typename T>
std::string ChoicesType(const Choices<T>& choices) {
  std::string words;
  for (const auto& [word, meaning] : choices) words += (words.empty() ? "" : ",") + word;
  return "{" + words + "}";
}

// Any number of such words.
template <typename T>
CLI::Option* AddChoices(CLI::App& app, const std::string& name, const Choices<T>& choices,
                        const std::string& description, std::function<void(T)> take) {
  return AddParsed<T>(
             app, name, description,
             [choices](std::string_view text) -> absl::StatusOr<T> {
               auto found = choices.find(std::string(text));
               // Any case, as all the words are small letters.
               if (found == choices.end()) {
                 found = choices.find(absl::AsciiStrToLower(std::string(text)));
               }
               if (found != choices.end()) return found->second;
               return absl::InvalidArgumentError("\"" + std::string(text) + "\" is none of " +
                                                 ChoicesType(choices));
             },
             std::move(take))
      ->type_name(ChoicesType(choices));
}

// One such word.
template <typename T>
CLI::Option* AddChoice(CLI::App& app, const std::string& name, std::optional<T>* value,
                       const Choices<T>& choices, const std::string& description) {
  return AddChoices<T>(app, name, choices, description, [value](T choice) { *value = choice; })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

}  // namespace bothy::bothyctl
