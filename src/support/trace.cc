#include "support/trace.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "support/event_loop.h"
#include "support/json_string.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace bothy {

namespace trace_internal {
std::atomic<bool> enabled{false};
}  // namespace trace_internal

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxTextBytes = 512;

std::string CallingThreadName() {
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

// The file in the array form of the format: "[", one event a line with commas in between, and a "]"
// that readers do without when the process was killed.
class Trace {
 public:
  Trace(UniqueFd file, uint64_t number, const TraceOptions& options)
      : number_(number), options_(options), begun_(Clock::now()), file_(std::move(file)) {
    waiting_ = absl::StrCat(R"([{"name":"process_name","ph":"M","pid":)", ::getpid(),
                            R"(,"args":{"name":"bothy"}})");
    writer_ = std::thread([this] {
      SetThreadName("trace");
      Write();
    });
  }
  ~Trace() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_one();
    writer_.join();
  }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // `fields` is an event but for the process and thread.
  void Add(std::string_view fields) {
    // Of which trace the calling thread has been named in, and as what.
    thread_local uint64_t named_in = 0;
    thread_local std::string named;
    const std::string where = absl::StrCat(R"("pid":)", ::getpid(), R"(,"tid":)", ::gettid());
    std::string events;
    std::string name = CallingThreadName();
    if (named_in != number_ || name != named) {
      absl::StrAppend(&events, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",", where,
                      R"(,"args":{"name":")", JsonEscaped(name, kMaxTextBytes), "\"}}");
      named_in = number_;
      named = std::move(name);
    }
    absl::StrAppend(&events, ",\n{", std::string(fields), ",", where, "}");
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.size() + events.size() > options_.max_waiting_bytes ||
          bytes_ + events.size() > options_.max_bytes) {
        ++dropped_;
        return;
      }
      bytes_ += events.size();
      waiting_ += events;
    }
    changed_.notify_one();
  }

  // Microseconds, as the format has it, with nanoseconds behind the point.
  [[nodiscard]] static std::string Microseconds(Clock::duration time) {
    const int64_t ns = std::chrono::nanoseconds(time).count();
    return absl::StrFormat("%d.%03d", ns / 1000, ns % 1000);
  }
  [[nodiscard]] std::string At(Clock::time_point when) const {
    // What began before the trace did begins with it.
    return Microseconds(std::max(when, begun_) - begun_);
  }

 private:
  void Write() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      const bool last = ending_;
      std::string text = std::exchange(waiting_, {});
      if (last) {
        if (dropped_ > 0) {
          absl::StrAppend(&text, ",\n{\"name\":\"", dropped_,
                          R"( events dropped","ph":"i","s":"p","ts":)", At(Clock::now()),
                          R"(,"pid":)", ::getpid(), R"(,"tid":)", ::gettid(), "}");
        }
        text += "\n]\n";
      }
      lock.unlock();
      WriteAll(text);
      if (last) return;
      lock.lock();
    }
  }

  void WriteAll(std::string_view text) {
    while (!text.empty() && !failed_) {
      const ssize_t written = ::write(file_.get(), text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        failed_ = true;
        LogWarning("trace", ErrnoStatus(errno, "the trace ends here: writing it").ToString());
        return;
      }
      text.remove_prefix(static_cast<size_t>(written));
    }
  }

  const uint64_t number_;  // of the traces of this process, from 1
  const TraceOptions options_;
  const Clock::time_point begun_;
  const UniqueFd file_;
  bool failed_ = false;  // writer only
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;   // guarded by mutex_
  uint64_t bytes_ = 0;    // guarded by mutex_
  uint64_t dropped_ = 0;  // guarded by mutex_
  bool ending_ = false;   // guarded by mutex_
  std::thread writer_;
};

struct State {
  std::mutex mutex;
  std::shared_ptr<Trace> trace;  // guarded by mutex
  uint64_t traces = 0;           // guarded by mutex
  std::atomic<uint64_t> operations{0};
};

State& GlobalState() {
  static State* state = new State;  // outlives every thread that may trace while the process ends
  return *state;
}

std::shared_ptr<Trace> CurrentTrace() {
  State& state = GlobalState();
  const std::lock_guard lock(state.mutex);
  return state.trace;
}

std::string NameFields(std::string_view category, std::string_view name) {
  return absl::StrCat(R"("cat":")", std::string(category), R"(","name":")",
                      JsonEscaped(name, kMaxTextBytes), "\"");
}

std::string Arguments(std::string_view detail, std::string_view outcome = {}) {
  if (detail.empty() && outcome.empty()) return "";
  std::string arguments = ",\"args\":{";
  if (!detail.empty()) {
    absl::StrAppend(&arguments, R"("detail":")", JsonEscaped(detail, kMaxTextBytes), "\"");
  }
  if (!outcome.empty()) {
    absl::StrAppend(&arguments, detail.empty() ? "" : ",", R"("outcome":")",
                    JsonEscaped(outcome, kMaxTextBytes), "\"");
  }
  return arguments + "}";
}

}  // namespace

absl::Status StartTrace(const std::string& path, const TraceOptions& options) {
  State& state = GlobalState();
  const std::lock_guard lock(state.mutex);
  if (state.trace != nullptr) return absl::FailedPreconditionError("a trace is under way");
  // O_NONBLOCK: what isn't a regular file must not have us wait.
  UniqueFd file(::open(path.c_str(),
                       O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_APPEND, 0600));
  if (!file) return ErrnoStatus(errno, absl::StrCat("open ", path));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  if (::ftruncate(file.get(), 0) != 0) return ErrnoStatus(errno, absl::StrCat("truncate ", path));
  try {
    state.trace = std::make_shared<Trace>(std::move(file), ++state.traces, options);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("the trace's thread: ", error.what()));
  }
  trace_internal::enabled.store(true, std::memory_order_relaxed);
  return absl::OkStatus();
}

void StopTrace() {
  trace_internal::enabled.store(false, std::memory_order_relaxed);
  State& state = GlobalState();
  std::shared_ptr<Trace> trace;
  {
    const std::lock_guard lock(state.mutex);
    trace = std::exchange(state.trace, nullptr);
  }
}

void TraceSpan::Begin(const char* category, const char* name, std::string_view detail) {
  begun_ =
      Begun{.category = category, .name = name, .detail = std::string(detail), .at = Clock::now()};
}

void TraceSpan::End() {
  const auto trace = CurrentTrace();
  if (trace == nullptr) return;
  trace->Add(absl::StrCat(
      NameFields(begun_->category, begun_->name), R"(,"ph":"X","ts":)", trace->At(begun_->at),
      R"(,"dur":)", Trace::Microseconds(Clock::now() - begun_->at), Arguments(begun_->detail)));
}

TraceOperation& TraceOperation::operator=(TraceOperation&& other) noexcept {
  if (this != &other) {
    End();
    begun_ = std::move(other.begun_);
    other.begun_.reset();
  }
  return *this;
}

void TraceOperation::Begin(const char* category, std::string_view name, std::string_view detail,
                           Clock::duration least) {
  begun_ = Begun{.category = category,
                 .name = std::string(name),
                 .detail = std::string(detail),
                 .at = Clock::now(),
                 .least = least,
                 .id = GlobalState().operations.fetch_add(1, std::memory_order_relaxed) + 1};
  // Of one that may be too short to show, both ends are written when it has turned out not to be.
  if (least > Clock::duration::zero()) return;
  if (const auto trace = CurrentTrace()) {
    trace->Add(absl::StrCat(NameFields(category, name), R"(,"ph":"b","id":)", begun_->id,
                            R"(,"ts":)", trace->At(begun_->at), Arguments(detail)));
  }
}

void TraceOperation::Finish(std::string_view outcome) {
  const Begun begun = *std::exchange(begun_, std::nullopt);
  const auto now = Clock::now();
  const auto trace = CurrentTrace();
  if (trace == nullptr || now - begun.at < begun.least) return;
  const std::string fields =
      absl::StrCat(NameFields(begun.category, begun.name), R"(,"id":)", begun.id);
  if (begun.least > Clock::duration::zero()) {
    trace->Add(
        absl::StrCat(fields, R"(,"ph":"b","ts":)", trace->At(begun.at), Arguments(begun.detail)));
  }
  trace->Add(absl::StrCat(fields, R"(,"ph":"e","ts":)", trace->At(now), Arguments({}, outcome)));
}

}  // namespace bothy
