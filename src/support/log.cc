#include "support/log.h"

#include <poll.h>
#include <pthread.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"

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

// Escapes for a JSON string and, in text form, keeps a record on one line whatever a guest or peer
// put in it.
std::string Escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 2);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out.append("\\n");
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      out.append("\\u00");
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string OneLine(std::string_view text) {
  bool clean = true;
  for (const char c : text) clean = clean && static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
  return clean ? std::string(text) : Escape(text);
}

std::string ThreadName() {
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

// Standard error, written to only while it takes a whole record at once.
class StandardErrorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  StandardErrorSink() : colours_(::isatty(STDERR_FILENO) == 1) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& record) override {
    spdlog::memory_buf_t formatted;
    formatter_->format(record, formatted);
    std::string line(formatted.data(), formatted.size());
    if (colours_ && record.color_range_end > record.color_range_start) {
      line.insert(record.color_range_end, "\033[m");
      line.insert(record.color_range_start, Colour(record.level));
    }
    if (line.size() > kMaxLogRecordBytes) {
      constexpr std::string_view kCut = "...\n";
      line.resize(kMaxLogRecordBytes - kCut.size());
      line += kCut;
    }
    if (dropped_ > 0 &&
        Write(absl::StrCat("(", dropped_, " records dropped: nobody read them)\n"))) {
      dropped_ = 0;
    }
    if (dropped_ > 0 || !Write(line)) ++dropped_;
  }
  void flush_() override {}

 private:
  static std::string_view Colour(spdlog::level::level_enum level) {
    if (level >= spdlog::level::err) return "\033[31m";
    return level == spdlog::level::warn ? "\033[33m" : "\033[32m";
  }

  static bool Write(std::string_view line) {
    pollfd fd{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    if (::poll(&fd, 1, 0) != 1 || (fd.revents & POLLOUT) == 0) return false;
    ssize_t written;
    do {
      written = ::write(STDERR_FILENO, line.data(), line.size());
    } while (written < 0 && errno == EINTR);
    return written >= 0;
  }

  const bool colours_;
  uint64_t dropped_ = 0;  // guarded by base_sink's mutex
};

struct State {
  std::mutex mutex;
  LogFormat format = LogFormat::kText;     // guarded by mutex
  std::string log_id;                      // guarded by mutex
  std::shared_ptr<spdlog::logger> logger;  // set once
  std::shared_ptr<spdlog::sinks::sink> sink;

  State() {
    sink = std::make_shared<StandardErrorSink>();
    logger = std::make_shared<spdlog::logger>("bothy", sink);
    logger->set_level(spdlog::level::info);
    SetPattern(LogFormat::kText);
  }

  void SetPattern(LogFormat to) {
    format = to;
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
  state.log_id = OneLine(id);
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
    const std::string tag = id.empty() ? std::string() : absl::StrCat("[", id, "] ");
    state.logger->log(ToSpdlog(level), "{}{}: {}", tag, component, OneLine(message));
    return;
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  state.logger->log(
      ToSpdlog(level),
      R"({{"time_us":{},"level":"{}","thread":"{}","log_id":"{}","component":"{}","message":"{}"}})",
      micros, spdlog::level::to_string_view(ToSpdlog(level)), Escape(ThreadName()), Escape(id),
      Escape(component), Escape(message));
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
