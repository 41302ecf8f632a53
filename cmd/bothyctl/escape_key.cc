#include "cmd/bothyctl/escape_key.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

EscapeCommand CommandOf(char key) {
  switch (key) {
    case 'q':
    case 'Q':
      return EscapeCommand::kQuit;
    case 'p':
    case 'P':
      return EscapeCommand::kPauseOrResume;
    case 'z':
    case 'Z':
      return EscapeCommand::kSuspend;
    case '?':
    case 'h':
    case 'H':
      return EscapeCommand::kHelp;
    default:
      return EscapeCommand::kUnknown;
  }
}

}  // namespace

absl::StatusOr<std::optional<char>> ParseEscapeKey(std::string_view text) {
  const std::string lower = absl::AsciiStrToLower(std::string(text));
  if (lower == "none") return std::optional<char>();
  std::string_view key = lower;
  if (key.starts_with("ctrl-")) {
    key.remove_prefix(5);
  } else if (key.starts_with('^')) {
    key.remove_prefix(1);
  } else {
    key = {};
  }
  // ^@ is left out: some terminals send NUL for other reasons.
  const bool control =
      key.size() == 1 && (absl::ascii_islower(static_cast<unsigned char>(key[0])) ||
                          std::string_view("[\\]^_").find(key[0]) != std::string_view::npos);
  if (!control) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text), "\" is not a key: write ^], ctrl-a or none"));
  }
  return std::optional<char>(static_cast<char>(key[0] & 0x1f));
}

std::string EscapeKeyName(char key) {
  return absl::StrCat("Ctrl-", std::string(1, static_cast<char>(key | 0x40)));
}

EscapeKey::Step EscapeKey::Take(std::string_view* typed) {
  Step step;
  if (!key_) {
    step.for_guest = *typed;
    *typed = {};
    return step;
  }
  if (escaped_ && !typed->empty()) {
    escaped_ = false;
    const char key = typed->front();
    typed->remove_prefix(1);
    if (key == *key_) {
      step.for_guest = std::string_view(&*key_, 1);
    } else {
      step.command = CommandOf(key);
    }
    return step;
  }
  const size_t at = typed->find(*key_);
  step.for_guest = typed->substr(0, at);
  typed->remove_prefix(step.for_guest.size());
  if (!typed->empty()) {
    typed->remove_prefix(1);
    escaped_ = true;
  }
  return step;
}

}  // namespace bothy::bothyctl
