#include "support/log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "support/json_string.h"
#include "support/unique_fd.h"

namespace bothy {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// What is longer is cut, so that a record with its frame fits kMaxLogRecordBytes.
constexpr size_t kMaxMessageBytes = 2500;
constexpr size_t kMaxNameBytes = 600;

// Keeps a record on one line, and a terminal unharmed, whatever a guest or peer put in it.
std::string OneLine(std::string_view text, size_t limit) {
  bool clean = text.size() <= limit;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    clean = clean && byte >= 0x20 && byte < 0x7f;
  }
  return clean ? std::string(text) : JsonEscaped(text, limit);
}

std::string ThreadName() {
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

std::string JsonRecord(std::string_view level, std::string_view id, std::string_view component,
                       std::string_view message) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  return absl::StrCat("{\"time_us\":", micros, R"(,"level":")", std::string(level),
                      R"(","thread":")", JsonEscaped(ThreadName(), kMaxNameBytes),
                      R"(","log_id":")", JsonEscaped(id, kMaxNameBytes), R"(","component":")",
                      JsonEscaped(component, kMaxNameBytes), R"(","message":")",
                      JsonEscaped(message, kMaxMessageBytes), "\"}");
}

// Standard error, or a way to it that never waits.
class StandardErrorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // Takes what standard error is now.
  void Open(LogFormat format) {
    const std::lock_guard lock(mutex_);
    format_ = format;
    const bool is_terminal = ::isatty(STDERR_FILENO) == 1;
    const char* const terminal = std::getenv("TERM");
    colours_ = is_terminal && terminal != nullptr && std::string_view(terminal) != "dumb";
    unsent_.clear();
    struct stat info {};
    // Of a terminal or pipe a description of our own: O_NONBLOCK on the one that we were given
    // would be everybody's who shares it.
    own_.Reset();
    if (::fstat(STDERR_FILENO, &info) == 0 && (is_terminal || S_ISFIFO(info.st_mode))) {
      own_.Reset(::open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    }
    is_socket_ = S_ISSOCK(info.st_mode);
  }

  void SetLogId(std::string_view id) {
    const std::lock_guard lock(mutex_);
    log_id_ = id;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& record) override {
    spdlog::memory_buf_t formatted;
    formatter_->format(record, formatted);
    std::string line(formatted.data(), formatted.size());
    if (colours_ && record.color_range_end > record.color_range_start) {
      line.insert(record.color_range_end, "\033[m");
      line.insert(record.color_range_start, Colour(record.level));
    }
    // Together with the record: small room that takes only the notice would see it again and again.
    if (dropped_ > 0) line.insert(0, Dropped());
    dropped_ = Send() && Begin(std::move(line)) ? 0 : dropped_ + 1;
  }
  void flush_() override {}

 private:
  static std::string_view Colour(spdlog::level::level_enum level) {
    if (level >= spdlog::level::err) return "\033[31m";
    return level == spdlog::level::warn ? "\033[33m" : "\033[32m";
  }

  [[nodiscard]] std::string Dropped() const {
    const std::string message = absl::StrCat(dropped_, " records dropped: nobody read them");
    if (format_ == LogFormat::kText) {
      return absl::StrCat(
          log_id_.empty() ? "" : absl::StrCat("[", OneLine(log_id_, kMaxNameBytes), "] "), "(",
          message, ")\n");
    }
    return JsonRecord("warning", log_id_, "log", message) + "\n";
  }

  // Writes `line`, of which the rest may wait in unsent_; false when nothing of it could be
  // written.
  bool Begin(std::string line) {
    const size_t size = line.size();
    unsent_ = std::move(line);
    if (Send() || unsent_.size() < size) return true;
    unsent_.clear();
    return false;
  }

  // Writes what is left of a record; whether all of it is out.
  bool Send() {
    while (!unsent_.empty()) {
      const ssize_t written = WriteSome();
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return false;
      unsent_.erase(0, static_cast<size_t>(written));
    }
    return true;
  }

  ssize_t WriteSome() {
    if (is_socket_) {
      return ::send(STDERR_FILENO, unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (own_.valid()) return ::write(own_.get(), unsent_.data(), unsent_.size());
    // A file; or what may not be opened again (another user's), of which poll(2) promises that much
    // room in a pipe and some in a terminal.
    pollfd fd{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    if (::poll(&fd, 1, 0) != 1 || (fd.revents & POLLOUT) == 0) {
      errno = EAGAIN;
      return -1;
    }
    return ::write(STDERR_FILENO, unsent_.data(), std::min<size_t>(unsent_.size(), PIPE_BUF));
  }

  // All guarded by base_sink's mutex.
  LogFormat format_ = LogFormat::kText;
  bool is_socket_ = false;
  bool colours_ = false;
  UniqueFd own_;
  std::string log_id_;
  std::string unsent_;  // of a record that is partly out
  uint64_t dropped_ = 0;
};

struct State {
  std::mutex mutex;
  LogFormat format = LogFormat::kText;     // guarded by mutex
  std::string log_id;                      // guarded by mutex
  std::shared_ptr<spdlog::logger> logger;  // set once
  std::shared_ptr<StandardErrorSink> sink;

  State() {
    sink = std::make_shared<StandardErrorSink>();
    logger = std::make_shared<spdlog::logger>("bothy", sink);
    logger->set_level(spdlog::level::info);
    SetPattern(LogFormat::kText);
  }

  void SetPattern(LogFormat to) {
    format = to;
    sink->Open(to);
    logger->set_pattern(to == LogFormat::kJson ? "%v" : "%Y-%m-%dT%H:%M:%S.%f%z %^%L%$ %v");
  }
};

State& GlobalState() {
  static State* state = new State;  // outlives every thread that may log while the process ends
  return *state;
}

}  // namespace

void ConfigureLogging(const LogOptions& options) {
  State& state = GlobalState();
  const std::lock_guard lock(state.mutex);
  state.logger->set_level(ToSpdlog(options.level));
  state.SetPattern(options.format);
}

void SetLogId(std::string_view id) {
  State& state = GlobalState();
  const std::lock_guard lock(state.mutex);
  state.log_id = id;
  state.sink->SetLogId(id);
}

void Log(LogLevel level, std::string_view component, std::string_view message) {
  State& state = GlobalState();
  if (!state.logger->should_log(ToSpdlog(level))) return;
  std::string id;
  LogFormat format;
  {
    const std::lock_guard lock(state.mutex);
    id = state.log_id;
    format = state.format;
  }
  if (format == LogFormat::kText) {
    const std::string tag =
        id.empty() ? std::string() : absl::StrCat("[", OneLine(id, kMaxNameBytes), "] ");
    state.logger->log(ToSpdlog(level), "{}{}: {}", tag, component,
                      OneLine(message, kMaxMessageBytes));
    return;
  }
  const auto name = spdlog::level::to_string_view(ToSpdlog(level));
  state.logger->log(ToSpdlog(level), "{}",
                    JsonRecord(std::string_view(name.data(), name.size()), id, component, message));
}

void LogLimiter::Log(LogLevel level, std::string_view component, std::string_view message) {
  uint64_t dropped = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now - window_start_ >= period_) {
      window_start_ = now;
      used_ = 0;
    }
    if (used_ >= burst_) {
      ++dropped_;
      return;
    }
    ++used_;
    dropped = std::exchange(dropped_, 0);
  }
  if (dropped == 0) {
    bothy::Log(level, component, message);
  } else {
    bothy::Log(level, component,
               absl::StrCat(std::string(message), " (", dropped, " earlier records dropped)"));
  }
}

}  // namespace bothy
