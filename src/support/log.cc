#include "support/log.h"

#include <pthread.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
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

struct State {
  std::mutex mutex;
  LogFormat format = LogFormat::kText;     // guarded by mutex
  std::string log_id;                      // guarded by mutex
  std::shared_ptr<spdlog::logger> logger;  // set once
  std::shared_ptr<spdlog::sinks::sink> sink;

  State() {
    sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>();
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
