#include "tests/guest/agent_client.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "support/status.h"

namespace bothy::guest {
namespace {

// The agent's lines are shorter; what is longer isn't from it.
constexpr size_t kMaxLine = 64 << 10;

std::string PercentEncode(const std::string& text) {
  std::string encoded;
  for (const char c : text) {
    if (absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '%') {
      encoded += c;
    } else {
      absl::StrAppendFormat(&encoded, "%%%02x", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

absl::Status Malformed(const std::string& line) {
  return absl::DataLossError(absl::StrCat("from the guest: ", absl::CHexEscape(line)));
}

}  // namespace

absl::Status AgentClient::Send(const std::string& line) {
  const std::string text = absl::StrCat(line, "\n");
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t n = write(serial_.get(), text.data() + sent, text.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd writable{serial_.get(), POLLOUT, 0};
      poll(&writable, 1, -1);
      continue;
    }
    if (n < 0) return absl::UnavailableError(absl::StrCat("write to the guest: errno ", errno));
    sent += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<AgentClient::Reply> AgentClient::Next(absl::Time deadline) {
  for (;;) {
    if (const size_t end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      absl::StripAsciiWhitespace(&line);
      if (line.empty()) continue;
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(' ', 2));
      return Reply{parts[0], parts.size() > 1 ? parts[1] : "", parts.size() > 2 ? parts[2] : ""};
    }
    if (received_.size() > kMaxLine) return Malformed(received_.substr(0, 80));
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("the guest didn't answer");
    std::array<pollfd, 2> readable = {{{serial_.get(), POLLIN, 0}, {halted_.get(), POLLIN, 0}}};
    const auto wait = absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
    const int ready = poll(readable.data(), readable.size(),
                           static_cast<int>(std::min<int64_t>(wait, 1'000'000'000)));
    if (ready <= 0) continue;
    if (readable[0].revents == 0) {
      // What it said last has been sent before it was said to have halted.
      if (poll(readable.data(), 1, 0) <= 0) return absl::UnavailableError("the guest has halted");
    }
    char buffer[4096];
    const ssize_t n = read(serial_.get(), buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return absl::UnavailableError("the guest's serial port was closed");
    received_.append(buffer, static_cast<size_t>(n));
  }
}

absl::StatusOr<AgentClient::Reply> AgentClient::Await(const std::string& verb,
                                                      const std::string& id, absl::Time deadline) {
  for (;;) {
    ASSIGN_OR_RETURN(Reply reply, Next(deadline));
    if (reply.verb == verb && reply.id == id) return reply;
    if (reply.verb == "error" && reply.id == id) return absl::InternalError(reply.rest);
    RETURN_IF_ERROR(Keep(reply));
  }
}

absl::Status AgentClient::Keep(const Reply& reply) {
  const auto result = results_.find(reply.id);
  if (reply.verb == "out" || reply.verb == "err") {
    std::string data;
    if (!absl::Base64Unescape(reply.rest, &data)) return Malformed(reply.rest);
    if (result == results_.end()) return absl::OkStatus();
    (reply.verb == "out" ? result->second.output : result->second.error_output) += data;
  } else if (reply.verb == "exit") {
    int status = 0;
    if (!absl::SimpleAtoi(reply.rest, &status)) return Malformed(reply.rest);
    if (result != results_.end()) result->second.status = status;
  } else if (reply.verb == "fact") {
    std::pair<std::string, std::string> fact = absl::StrSplit(reply.rest, absl::MaxSplits(' ', 1));
    facts_[reply.id].insert(std::move(fact));
  }
  return absl::OkStatus();
}

absl::Status AgentClient::WaitReady(absl::Duration timeout) {
  return Await("ready", "1", absl::Now() + timeout).status();
}

absl::Status AgentClient::Ping(absl::Duration timeout) {
  const std::string id = NewId();
  RETURN_IF_ERROR(Send(absl::StrCat("ping ", id)));
  return Await("pong", id, absl::Now() + timeout).status();
}

absl::StatusOr<AgentClient::Result> AgentClient::Run(const std::string& command,
                                                     absl::Duration timeout) {
  ASSIGN_OR_RETURN(const std::string id, Start(command));
  return Finish(id, timeout);
}

absl::StatusOr<std::string> AgentClient::Start(const std::string& command) {
  std::string id = NewId();
  RETURN_IF_ERROR(Send(absl::StrCat("run ", id, " ", PercentEncode(command))));
  results_.emplace(id, Result{});
  return id;
}

absl::StatusOr<AgentClient::Result> AgentClient::Finish(const std::string& id,
                                                        absl::Duration timeout) {
  const auto result = results_.find(id);
  if (result == results_.end()) return absl::NotFoundError(absl::StrCat("no command ", id));
  if (result->second.status < 0) {
    ASSIGN_OR_RETURN(const Reply exit, Await("exit", id, absl::Now() + timeout));
    if (!absl::SimpleAtoi(exit.rest, &result->second.status)) return Malformed(exit.rest);
  }
  Result finished = std::move(result->second);
  results_.erase(result);
  return finished;
}

absl::Status AgentClient::Kill(const std::string& id, int signal) {
  return Send(absl::StrCat("kill ", id, " ", signal));
}

absl::Status AgentClient::AwaitOutput(const std::string& id, const std::string& text,
                                      absl::Duration timeout) {
  const auto result = results_.find(id);
  if (result == results_.end()) return absl::NotFoundError(absl::StrCat("no command ", id));
  const absl::Time deadline = absl::Now() + timeout;
  while (result->second.output.find(text) == std::string::npos) {
    if (result->second.status >= 0) {
      return absl::OutOfRangeError(absl::StrCat("command ", id, " ended before it printed that"));
    }
    ASSIGN_OR_RETURN(const Reply reply, Next(deadline));
    RETURN_IF_ERROR(Keep(reply));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AgentClient::OutputToTheEnd(const std::string& id,
                                                        absl::Duration timeout) {
  const auto result = results_.find(id);
  if (result == results_.end()) return absl::NotFoundError(absl::StrCat("no command ", id));
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const absl::StatusOr<Reply> reply = Next(deadline);
    if (absl::IsUnavailable(reply.status())) return result->second.output;
    RETURN_IF_ERROR(reply.status());
    RETURN_IF_ERROR(Keep(*reply));
  }
}

absl::StatusOr<AgentClient::Clocks> AgentClient::ReadClocks(absl::Duration timeout) {
  const std::string id = NewId();
  RETURN_IF_ERROR(Send(absl::StrCat("clock ", id)));
  ASSIGN_OR_RETURN(const Reply reply, Await("clock", id, absl::Now() + timeout));
  const std::vector<std::string> values = absl::StrSplit(reply.rest, ' ');
  int64_t monotonic = 0, boottime = 0, realtime = 0;
  if (values.size() != 3 || !absl::SimpleAtoi(values[0], &monotonic) ||
      !absl::SimpleAtoi(values[1], &boottime) || !absl::SimpleAtoi(values[2], &realtime)) {
    return Malformed(reply.rest);
  }
  return Clocks{absl::Nanoseconds(monotonic), absl::Nanoseconds(boottime),
                absl::FromUnixNanos(realtime)};
}

absl::StatusOr<AgentClient::Facts> AgentClient::ReadFacts(absl::Duration timeout) {
  const std::string id = NewId();
  RETURN_IF_ERROR(Send(absl::StrCat("facts ", id)));
  const absl::Status done = Await("exit", id, absl::Now() + timeout).status();
  Facts facts = std::move(facts_[id]);
  facts_.erase(id);
  if (!done.ok()) return done;
  return facts;
}

absl::Status AgentClient::End(const std::string& how, absl::Duration timeout) {
  const std::string id = NewId();
  RETURN_IF_ERROR(Send(absl::StrCat("end ", id, " ", how)));
  return Await("ending", id, absl::Now() + timeout).status();
}

}  // namespace bothy::guest
