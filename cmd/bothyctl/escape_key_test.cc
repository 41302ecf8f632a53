#include "cmd/bothyctl/escape_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace bothy::bothyctl {
namespace {

using ::testing::ElementsAre;

// What came of typing: bytes for the guest, and commands, in their order.
struct Heard {
  std::string guest;
  std::vector<EscapeCommand> commands;
  std::string order;  // 'g' and 'c'
};

void Type(EscapeKey& key, std::string_view typed, Heard* heard) {
  while (!typed.empty()) {
    const EscapeKey::Step step = key.Take(&typed);
    heard->guest += step.for_guest;
    if (!step.for_guest.empty()) heard->order += 'g';
    if (!step.command) continue;
    heard->commands.push_back(*step.command);
    heard->order += 'c';
  }
}

Heard Type(std::string_view typed, std::optional<char> escape = kDefaultEscapeKey) {
  EscapeKey key(escape);
  Heard heard;
  Type(key, typed, &heard);
  return heard;
}

TEST(EscapeKeyTest, PassesEverythingElseToTheGuest) {
  std::string all;
  for (int c = 0; c < 256; ++c) {
    if (c != kDefaultEscapeKey) all += static_cast<char>(c);
  }
  const Heard heard = Type(all);
  EXPECT_EQ(heard.guest, all);
  EXPECT_THAT(heard.commands, ElementsAre());
}

TEST(EscapeKeyTest, ReadsCommandsBetweenInput) {
  const Heard heard = Type("ab\x1dpcd\x1dqef");
  EXPECT_EQ(heard.guest, "abcdef");
  EXPECT_THAT(heard.commands, ElementsAre(EscapeCommand::kPauseOrResume, EscapeCommand::kQuit));
  EXPECT_EQ(heard.order, "gcgcg");
}

TEST(EscapeKeyTest, KnowsItsKeys) {
  EXPECT_THAT(Type("\x1dq\x1dQ\x1dp\x1dz\x1d?\x1dh\x1dx").commands,
              ElementsAre(EscapeCommand::kQuit, EscapeCommand::kQuit, EscapeCommand::kPauseOrResume,
                          EscapeCommand::kSuspend, EscapeCommand::kHelp, EscapeCommand::kHelp,
                          EscapeCommand::kUnknown));
}

TEST(EscapeKeyTest, SendsItselfWhenTypedTwice) {
  EXPECT_EQ(Type("a\x1d\x1d"
                 "b")
                .guest,
            "a\x1d"
            "b");
  const Heard heard = Type("\x1d\x1d\x1dq");
  EXPECT_EQ(heard.guest, "\x1d");
  EXPECT_THAT(heard.commands, ElementsAre(EscapeCommand::kQuit));
}

TEST(EscapeKeyTest, RemembersAcrossPieces) {
  EscapeKey key(kDefaultEscapeKey);
  Heard heard;
  for (const char c : std::string("x\x1d\x1dy\x1dqz")) Type(key, std::string_view(&c, 1), &heard);
  EXPECT_EQ(heard.guest, "x\x1dyz");
  EXPECT_THAT(heard.commands, ElementsAre(EscapeCommand::kQuit));
}

TEST(EscapeKeyTest, CanBeAnotherKeyOrNone) {
  EXPECT_THAT(Type("\x1d\x01q", 0x01).commands, ElementsAre(EscapeCommand::kQuit));
  EXPECT_EQ(Type("\x1d\x01q", 0x01).guest, "\x1d");
  EXPECT_EQ(Type("\x1dq", std::nullopt).guest, "\x1dq");
  EXPECT_THAT(Type("\x1dq", std::nullopt).commands, ElementsAre());
}

TEST(EscapeKeyTest, IsReadByItsName) {
  EXPECT_EQ(ParseEscapeKey("^]").value(), '\x1d');
  EXPECT_EQ(ParseEscapeKey("Ctrl-]").value(), '\x1d');
  EXPECT_EQ(ParseEscapeKey("ctrl-a").value(), '\x01');
  EXPECT_EQ(ParseEscapeKey("^Z").value(), '\x1a');
  EXPECT_EQ(ParseEscapeKey("none").value(), std::nullopt);
  for (const char* text : {"", "a", "]", "^", "^@", "^1", "ctrl-", "ctrl-ab", "alt-a"}) {
    EXPECT_EQ(ParseEscapeKey(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(EscapeKeyTest, IsCalledByItsName) {
  EXPECT_EQ(EscapeKeyName('\x1d'), "Ctrl-]");
  EXPECT_EQ(EscapeKeyName('\x01'), "Ctrl-A");
}

}  // namespace
}  // namespace bothy::bothyctl
