// AgentClient: a test's hand inside the guest, by the protocol on the second serial port
// (README.md beside this file).
//
//   AgentClient agent(std::move(serial_socket));  // the host's end of COM2
//   ASSERT_OK(agent.WaitReady(absl::Seconds(60)));
//   auto result = agent.Run("cat /proc/uptime", absl::Seconds(10));
//   ASSERT_OK(result);
//   EXPECT_EQ(result->status, 0);
//
// One thread. Every call that waits takes a timeout and answers DeadlineExceeded after it; a guest
// that goes away answers Unavailable. What the guest sends is checked, not trusted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "support/unique_fd.h"

namespace bothy::guest {

class AgentClient {
 public:
  struct Result {
    int status = -1;  // the command's, 128 + signal for a death by signal
    std::string output;
    std::string error_output;
  };

  struct Clocks {
    absl::Duration monotonic;
    absl::Duration boottime;
    absl::Time realtime;
  };

  // Names may repeat, such as memory.range.
  using Facts = std::multimap<std::string, std::string>;

  // `serial` is a connected stream socket, or a terminal's master side. `halted`, if given, becomes
  // readable when the guest has gone, which a serial port doesn't tell.
  explicit AgentClient(UniqueFd serial, UniqueFd halted = {})
      : serial_(std::move(serial)), halted_(std::move(halted)) {}

  // Waits for the agent's first word. Not needed again after a pause; needed after a reset.
  [[nodiscard]] absl::Status WaitReady(absl::Duration timeout);

  // A round trip through the guest's user space.
  [[nodiscard]] absl::Status Ping(absl::Duration timeout);

  // Runs a shell command in the guest to its end.
  [[nodiscard]] absl::StatusOr<Result> Run(const std::string& command, absl::Duration timeout);

  // The same in two halves, so that something else can happen meanwhile.
  [[nodiscard]] absl::StatusOr<std::string> Start(const std::string& command);
  [[nodiscard]] absl::StatusOr<Result> Finish(const std::string& id, absl::Duration timeout);
  [[nodiscard]] absl::Status Kill(const std::string& id, int signal);
  // Waits until a command that was started has printed `text`.
  [[nodiscard]] absl::Status AwaitOutput(const std::string& id, const std::string& text,
                                         absl::Duration timeout);
  // All that a command printed before the guest went away.
  [[nodiscard]] absl::StatusOr<std::string> OutputToTheEnd(const std::string& id,
                                                           absl::Duration timeout);

  [[nodiscard]] absl::StatusOr<Clocks> ReadClocks(absl::Duration timeout);
  [[nodiscard]] absl::StatusOr<Facts> ReadFacts(absl::Duration timeout);

  // Has the guest end: "poweroff", "reset", "panic", "triple-fault", … Returns when the guest is
  // about to.
  [[nodiscard]] absl::Status End(const std::string& how, absl::Duration timeout);

 private:
  struct Reply {
    std::string verb;
    std::string id;
    std::string rest;
  };

  absl::Status Send(const std::string& line);
  // The next reply of any kind.
  absl::StatusOr<Reply> Next(absl::Time deadline);
  // Takes replies until one has this verb and id, which it returns; what belongs to running
  // commands is kept for them.
  absl::StatusOr<Reply> Await(const std::string& verb, const std::string& id, absl::Time deadline);
  // Keeps what belongs to a running command.
  absl::Status Keep(const Reply& reply);
  std::string NewId() { return std::to_string(++last_id_); }

  UniqueFd serial_;
  UniqueFd halted_;
  std::string received_;
  uint64_t last_id_ = 0;
  // Of commands that Finish wasn't called for yet; status is -1 while one runs.
  std::map<std::string, Result, std::less<>> results_;
  std::map<std::string, Facts, std::less<>> facts_;
};

}  // namespace bothy::guest
