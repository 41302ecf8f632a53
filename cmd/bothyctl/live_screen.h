// LiveScreen: a text that is shown again and again, in one place of the terminal or one below the
// other, until somebody ends it.
//
//   PollLoop loop;
//   LiveScreen screen(loop);
//   if (!screen.Begin(LiveScreen::Where::kTerminalIfUsable)) return kExitError;
//   const auto show = [&] { return screen.Show(CutToSize(text, screen.size())); };
//   while (show() && screen.Rest(next, show)) text = ...;
//   screen.Leave();
//   return screen.ExitStatus();
//
// On a terminal it has a screen of its own (the alternate one, so that what was there comes back),
// without a cursor, and keys arrive unseen: q, Ctrl-C and Ctrl-D end it. Elsewhere each text stands
// below the one before, and SIGINT, SIGTERM and SIGHUP end it. The terminal is put back however
// this process ends (TerminalMode).
//
// Main thread only, made while it is the only one: it blocks the signals that it obeys, and forks.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "cmd/bothyctl/cleanup_process.h"
#include "cmd/bothyctl/poll_loop.h"
#include "cmd/bothyctl/screen_text.h"
#include "cmd/bothyctl/terminal_mode.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {

class LiveScreen {
 public:
  enum class Where : uint8_t { kTerminalIfUsable, kBelow };

  // `loop` outlives this.
  explicit LiveScreen(PollLoop& loop);
  ~LiveScreen();
  LiveScreen(const LiveScreen&) = delete;
  LiveScreen& operator=(const LiveScreen&) = delete;

  // Takes the terminal, if it is to. False when that fails, which has been told.
  [[nodiscard]] bool Begin(Where where);
  // Gives it back; again is nothing.
  void Leave();
  [[nodiscard]] bool on_terminal() const { return on_terminal_; }

  // What there is room for now.
  [[nodiscard]] ScreenSize size() const;
  // `text` is lines that fit, each with a newline, harmless for a terminal. False, after an error
  // line, when it can't be written.
  [[nodiscard]] bool Show(std::string_view text);

  // Runs the loop until `done` says so. False: somebody has ended it.
  [[nodiscard]] bool Await(const std::function<bool()>& done);
  // Runs the loop until `time`, and calls `again` whenever the terminal has got another size.
  // False: somebody has ended it, or `again` says false.
  [[nodiscard]] bool Rest(PollLoop::Clock::time_point time, const std::function<bool()>& again);

  // 0, or what a signal makes of it.
  [[nodiscard]] int ExitStatus() const;

 private:
  [[nodiscard]] bool ended() const { return quits_ || signal_ != 0; }
  void OnSignal();
  void OnKeys();

  PollLoop& loop_;
  UniqueFd signals_;
  std::unique_ptr<CleanupProcess> cleanup_;
  std::unique_ptr<TerminalMode> terminal_;
  bool on_terminal_ = false;
  bool quits_ = false;
  bool resized_ = false;
  int signal_ = 0;
};

}  // namespace bothy::bothyctl
