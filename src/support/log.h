// Logging: one process-wide sink on standard error, text or JSON, one record a line.
//
// Never waits: while nobody reads standard error (a full pipe, a stopped terminal) records are
// dropped, and the first one that is written again is preceded by their number. A record is at most
// kMaxLogRecordBytes long; what is longer is cut.
//
// Thread-safe. Every record carries the time, level, thread name, the component that wrote it and,
// while a VM exists, the VM's log_id (set by vmservice/ from CreateVMRequest.log_id).
//
//   LogInfo("serial", absl::StrCat("com1: client connected, fd ", fd));
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace bothy {

inline constexpr size_t kMaxLogRecordBytes = 4096;

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
};

// Sets level and format, and takes what standard error is now; records written before it use
// LogOptions{}.
void ConfigureLogging(const LogOptions& options);
// The id that every following record carries; empty: none.
void SetLogId(std::string_view id);

void Log(LogLevel level, std::string_view component, std::string_view message);
inline void LogDebug(std::string_view component, std::string_view message) {
  Log(LogLevel::kDebug, component, message);
}
inline void LogInfo(std::string_view component, std::string_view message) {
  Log(LogLevel::kInfo, component, message);
}
inline void LogWarning(std::string_view component, std::string_view message) {
  Log(LogLevel::kWarning, component, message);
}
inline void LogError(std::string_view component, std::string_view message) {
  Log(LogLevel::kError, component, message);
}

// Bounds what a guest or peer can make us log: at most `burst` records a `period`; the next record
// that passes says how many were dropped. Thread-safe.
class LogLimiter {
 public:
  explicit LogLimiter(uint32_t burst = 10,
                      std::chrono::steady_clock::duration period = std::chrono::seconds(1))
      : burst_(burst), period_(period) {}
  void Log(LogLevel level, std::string_view component, std::string_view message);

 private:
  const uint32_t burst_;
  const std::chrono::steady_clock::duration period_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point window_start_;  // guarded by mutex_
  uint32_t used_ = 0;                                   // guarded by mutex_
  uint64_t dropped_ = 0;                                // guarded by mutex_
};

}  // namespace bothy
