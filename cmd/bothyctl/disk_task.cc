#include "cmd/bothyctl/disk_task.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {
namespace {

// What the command lines call the fields of an ImageSpec.
struct FieldName {
  std::string_view field;
  std::string_view flag;
};
constexpr std::array<FieldName, 3> kFieldNames = {{{"block_size_bytes: ", "--block-size: "},
                                                   {"logical_sector_bytes: ", "--sector-size: "},
                                                   {"parent_path: ", "--parent: "}}};

// The status in words of the command line, when it is one that was wrong.
// Messages about an image that is there begin with its path.
std::optional<absl::Status> AboutCommandLine(const absl::Status& status, const DiskVerb& verb) {
  if (!absl::IsInvalidArgument(status)) return std::nullopt;
  std::string message(status.message());
  const std::string size = absl::StrCat(verb.size_name, ": ");
  std::vector<FieldName> names(kFieldNames.begin(), kFieldNames.end());
  names.push_back({"size_bytes: ", size});
  for (const FieldName& name : names) {
    const size_t at = message.find(name.field);
    if (at == std::string::npos || (at != 0 && !message.substr(0, at).ends_with(": "))) continue;
    message.replace(at, name.field.size(), name.flag);
    return absl::InvalidArgumentError(message);
  }
  return std::nullopt;
}

// For the handler.
volatile std::sig_atomic_t caught_signal = 0;
volatile std::sig_atomic_t caught_event = -1;

void Caught(int signal) {
  const int saved = errno;
  caught_signal = signal;
  const uint64_t one = 1;
  // Can't fail: the counter is nowhere near its end.
  static_cast<void>(!::write(static_cast<int>(caught_event), &one, sizeof one));
  errno = saved;
}

// Calls `on_signal` on the loop when a signal asks to end.
class SignalWatch {
 public:
  SignalWatch(IoLoop& loop, OnSignal what, std::function<void()> on_signal)
      : event_(::eventfd(0, EFD_CLOEXEC)) {
    caught_signal = 0;
    caught_event = event_.get();
    watch_ = loop.WatchEvent(event_.get(), std::move(on_signal));
    struct sigaction action {};
    action.sa_handler = Caught;
    // The second one ends the process.
    if (what == OnSignal::kStop) action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &before_[i]);
    // Whoever reads what is told of it may be gone by the same signal.
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, &pipe_before_);
  }
  ~SignalWatch() {
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
    ::sigaction(SIGPIPE, &pipe_before_, nullptr);
  }
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  UniqueFd event_;
  std::unique_ptr<IoLoop::Watch> watch_;
  std::array<struct sigaction, kSignals.size()> before_{};
  struct sigaction pipe_before_ {};
};

}  // namespace

int RunDiskTask(const DiskVerb& verb,
                const std::function<Task<absl::Status>(DiskTaskContext&)>& task) {
  const std::string name = absl::StrCat("disk ", verb.name);
  absl::StatusOr<std::unique_ptr<IoLoop>> loop = IoLoop::Create();
  if (!loop.ok()) {
    PrintError(ErrorLine(name, loop.status()));
    return kExitError;
  }
  std::stop_source stop;
  std::optional<SignalWatch> signals;
  std::optional<absl::Status> status;
  {
    DiskProgress progress(verb.name);
    const auto caught = [&] {
      if (!stop.request_stop() || verb.on_signal == OnSignal::kStop) return;
      progress.Clear();
      PrintError(absl::StrCat(name, ": interrupted: ends when what has begun is done"));
    };
    if (verb.on_signal != OnSignal::kDie) signals.emplace(**loop, verb.on_signal, caught);
    DiskTaskContext context = {.loop = **loop, .progress = progress, .stop = stop.get_token()};
    Start(task(context), [&status](absl::Status result) { status = std::move(result); });
    (*loop)->RunUntil([&status] { return status.has_value(); });
    // What it calls goes.
    signals.reset();
  }
  if (status->ok()) return kExitOk;
  if (const std::optional<absl::Status> misuse = AboutCommandLine(*status, verb)) {
    PrintError(ErrorLine(name, *misuse));
    return kExitUsage;
  }
  if (absl::IsAlreadyExists(*status)) {
    status = absl::AlreadyExistsError(absl::StrCat(status->message(), "; --force replaces it"));
  }
  PrintError(ErrorLine(name, *status));
  const bool interrupted = absl::IsCancelled(*status) && stop.stop_requested();
  return interrupted ? kExitSignal + static_cast<int>(caught_signal) : static_cast<int>(kExitError);
}

}  // namespace bothy::bothyctl
