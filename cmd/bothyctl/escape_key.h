// EscapeKey: the key that talks to bothyctl instead of to the guest, and what follows it.
//
// Pure; fed with what was typed, in pieces of any size.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::bothyctl {

inline constexpr char kDefaultEscapeKey = 0x1d;  // Ctrl-]

// The byte that a key sends: "^]", "ctrl-a", "Ctrl-]" (the control characters), nothing for "none".
// InvalidArgument says what may be written.
absl::StatusOr<std::optional<char>> ParseEscapeKey(std::string_view text);

// The key as people call it: "Ctrl-]".
std::string EscapeKeyName(char key);

enum class EscapeCommand { kQuit, kPauseOrResume, kSuspend, kHelp, kUnknown };

class EscapeKey {
 public:
  // Without a key, everything is for the guest.
  explicit EscapeKey(std::optional<char> key) : key_(key) {}

  // What to do next with what was typed.
  struct Step {
    std::string_view for_guest;            // send this first
    std::optional<EscapeCommand> command;  // then do this
  };
  // Takes from the front of `*typed` up to and including the next command, or all of it. The key
  // twice is the key for the guest, once. `for_guest` points into `*typed` or into this object, and
  // is valid until the next call.
  Step Take(std::string_view* typed);

 private:
  const std::optional<char> key_;
  bool escaped_ = false;  // the key came last
};

}  // namespace bothy::bothyctl
