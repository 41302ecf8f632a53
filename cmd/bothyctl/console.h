// Console: a guest's serial port on this process's standard input and output.
//
// Between a Unix socket that the server relays the port to, and two descriptors that are a
// terminal, a pipe or a file. The guest's output is read as fast as it comes and written by a
// thread of its own; a reader that falls more than kMaxBacklog behind is waited for. Input that the
// guest doesn't take waits, but the escape key always works.
//
// Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cmd/bothyctl/escape_key.h"
#include "cmd/bothyctl/output_writer.h"
#include "cmd/bothyctl/poll_loop.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {

struct ConsoleOptions {
  int input = 0;      // stays the caller's
  int output = 1;     // stays the caller's
  bool keys = false;  // input is a terminal in raw mode: the escape key works
  std::optional<char> escape_key;
  std::function<void(EscapeCommand)> on_command;
  std::function<void(std::string_view)> on_output;  // what the guest printed, as it comes
};

class Console {
 public:
  static constexpr size_t kMaxBacklog = 4 << 20;  // bytes of output
  static constexpr size_t kMaxInput = 64 << 10;   // bytes that the guest hasn't taken

  Console(PollLoop& loop, ConsoleOptions options);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // The first connection to `listener`, which doesn't block, is the serial port.
  void Accept(UniqueFd listener);
  // From now on, input is read. Before, it waits where it is.
  void StartInput();
  void StopInput();

  // A line for the user: between the guest's output if that goes to a terminal, else on standard
  // error. The text has no line ends.
  void Notice(std::string_view text);
  // A line for standard error, which may well be the output's terminal.
  void Log(std::string_view text);

  // Held, what the guest prints stays in the socket.
  void HoldOutput(bool hold);
  // Reads what the guest has printed so far and the server has passed on, up to 1 MiB of it.
  void ReadAvailable();
  // The guest's bytes so far.
  [[nodiscard]] uint64_t received() const { return received_; }
  // The other end has connected, and has closed: there is no more output to come.
  [[nodiscard]] bool connected() const { return socket_.valid() || ended_; }
  [[nodiscard]] bool ended() const { return ended_; }
  // Whether reading waits for the output to be written.
  [[nodiscard]] bool waiting_for_output() const { return full_; }
  // Whether everything has been written, as far as it could be.
  [[nodiscard]] bool flushed() const { return writer_.backlog() == 0; }
  // Has the loop wake up when flushed() becomes true.
  void WakeWhenFlushed();
  // errno of a failed write to the output; 0: none.
  [[nodiscard]] int output_error() const { return writer_.error(); }
  // Whether the output stands at the beginning of a line.
  [[nodiscard]] bool at_line_start() const { return at_line_start_; }

 private:
  void AcceptIfThere();
  void OnInput();
  void Typed(std::string_view typed);
  void SendToGuest(std::string_view bytes);
  void FlushInput();
  void OnSocket();
  void OnWritten();
  void UpdateWatches();

  PollLoop& loop_;
  const ConsoleOptions options_;
  const bool output_is_terminal_;
  EscapeKey escape_;
  UniqueFd listener_;
  UniqueFd socket_;
  bool ended_ = false;
  bool reading_input_ = false;
  bool input_ended_ = false;
  std::string to_guest_;
  uint64_t received_ = 0;
  bool at_line_start_ = true;
  bool full_ = false;
  bool held_ = false;
  bool wake_when_flushed_ = false;
  const std::unique_ptr<char[]> buffer_;
  // Expires when the object does, for posts that come after it.
  const std::shared_ptr<Console*> self_;
  OutputWriter writer_;
};

}  // namespace bothy::bothyctl
