// Child: a program run by a test, on pipes or on a terminal of its own.
//
//   Child child({BOTHYCTL, "run", …}, {.terminal = true});
//   child.AwaitOutput("ready");
//   child.Type("\x1dq");
//   EXPECT_EQ(child.AwaitEnd(), 0);
//
// The process is killed with the object. Nothing waits longer than Patience(); then the test fails.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/unique_fd.h"

namespace bothy::bothyctl {

struct ChildOptions {
  // Standard input, output and error are one terminal, which is the child's controlling one; else
  // each is a pipe.
  bool terminal = false;
  std::map<std::string, std::string> environment = {};  // added to this process's
};

class Child {
 public:
  explicit Child(const std::vector<std::string>& words, const ChildOptions& options = {});
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // What standard output (or the terminal) has shown so far, and on until `text` has come, or the
  // program has ended. What has been awaited once isn't awaited again.
  void AwaitOutput(const std::string& text);
  [[nodiscard]] const std::string& output() const { return output_; }
  // With pipes: the same for standard error.
  [[nodiscard]] const std::string& error_output() const { return error_output_; }

  void Type(const std::string& keys);
  void CloseInput() { input_.Reset(); }
  void CloseOutput() { out_.Reset(); }

  // Reads output to its end and waits; the exit status, or 128 + the signal.
  int AwaitEnd();
  void Signal(int signal) const;
  [[nodiscard]] pid_t pid() const { return pid_; }

  // The terminal's mode now.
  [[nodiscard]] termios Mode() const;
  // Waits until the mode is raw, or isn't.
  void AwaitRaw(bool raw) const;
  // Gives the terminal another size, and the program the signal that says so.
  void Resize(uint16_t columns, uint16_t rows) const;
  // The mode before the program ran.
  [[nodiscard]] const termios& mode_before() const { return mode_before_; }

 private:
  enum class Until : uint8_t { kEndOfOutput, kEndOfProgram };
  // Reads what is there, waiting for it; false at the end of both outputs or, if that is asked for,
  // once the program has ended and all that it wrote is read; and after a failure.
  bool ReadSome(Until until);

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  std::optional<int> end_;
  UniqueFd input_;
  UniqueFd out_;
  UniqueFd err_;
  UniqueFd slave_;  // of the terminal, so that its mode outlives the child
  termios mode_before_ = {};
  std::string output_;
  std::string error_output_;
  size_t awaited_ = 0;
};

// How long what must come may take: a minute, but a second in a test that has failed already.
[[nodiscard]] std::chrono::milliseconds Patience();

// Whether these are the same mode.
bool SameMode(const termios& a, const termios& b);

}  // namespace bothy::bothyctl
