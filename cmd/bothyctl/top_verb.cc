// `bothyctl top`: asks every server for its state tree again and again, and shows what goes on.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/cleanup_process.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/poll_loop.h"
#include "cmd/bothyctl/terminal_mode.h"
#include "cmd/bothyctl/top_view.h"
#include "cmd/bothyctl/verbs.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

using Clock = PollLoop::Clock;

constexpr char kExamples[] =
    R"(  bothyctl top -a vm.sock
      one VM, with its processors, disks and network cards; q ends it
  bothyctl top /run/vms/*.sock
      a line a VM
  bothyctl top -a vm.sock --delay 5s --count 12 > minute.txt
      without a terminal each round is printed below the last one
  bothyctl top -a vm.sock --count 1 --json
      for a script: the figures of one second)";

constexpr std::chrono::seconds kLeastPatience{1};

// A screen of our own, without a cursor; and back.
constexpr char kEnterScreen[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeaveScreen[] = "\x1b[?25h\x1b[?1049l";
// To the top, and behind the last line nothing of before.
constexpr char kHome[] = "\x1b[H";
constexpr char kClearToEndOfLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

struct TopOptions {
  std::vector<std::string> addresses;
  std::optional<std::chrono::nanoseconds> delay;
  uint64_t count = 0;  // of rounds; 0: for ever
  bool batch = false;
};

class TopSession {
 public:
  // Blocks the signals it obeys, so the process must have one thread.
  TopSession(const Globals& globals, const TopOptions& options);
  ~TopSession() { LeaveScreen(); }
  TopSession(const TopSession&) = delete;
  TopSession& operator=(const TopSession&) = delete;

  // The exit status.
  int Run();

 private:
  struct Server {
    TopServer shown;
    std::optional<Connection> connection;
    std::optional<TopSample> last;
    bool asked = false;  // and not answered
  };

  bool EnterScreen();
  void LeaveScreen();
  void OnSignal();
  void OnKeys();
  void Ask(size_t index);
  void OnAnswer(size_t index, const absl::StatusOr<::vmservice::InspectVMResponse>& answer);
  [[nodiscard]] bool ended() const { return quits_ || signal_ != 0; }
  // Asks all servers and waits for them, then until `next`. False: it is to end.
  bool Round(Clock::time_point next);
  [[nodiscard]] bool Show();

  const Globals& globals_;
  const TopOptions& options_;
  const std::chrono::nanoseconds delay_;
  PollLoop loop_;
  UniqueFd signals_;
  std::unique_ptr<CleanupProcess> cleanup_;
  std::unique_ptr<TerminalMode> terminal_;
  bool on_screen_ = false;
  bool quits_ = false;
  int signal_ = 0;
  bool resized_ = false;
  std::vector<TopServer> shown_;
  // Last, since their connections' threads post to the loop.
  std::vector<Server> servers_;
};

TopSession::TopSession(const Globals& globals, const TopOptions& options)
    : globals_(globals),
      options_(options),
      delay_(options.delay.value_or(std::chrono::seconds(1))),
      servers_(options.addresses.size()) {
  for (size_t i = 0; i < servers_.size(); ++i) servers_[i].shown.address = options.addresses[i];
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT}) {
    ::sigaddset(&signals, signal);
  }
  CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  signals_.Reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  CHECK(signals_.valid());
  loop_.Watch(signals_.get(), POLLIN, [this] { OnSignal(); });
}

bool TopSession::EnterScreen() {
  absl::StatusOr<std::unique_ptr<CleanupProcess>> cleanup = CleanupProcess::Start("", STDIN_FILENO);
  if (!cleanup.ok()) return Tell("top", cleanup.status()) == kExitOk;
  cleanup_ = *std::move(cleanup);
  terminal_ = std::make_unique<TerminalMode>(STDIN_FILENO, *cleanup_);
  if (const absl::Status raw = terminal_->EnterRaw(); !raw.ok()) return Tell("top", raw) == kExitOk;
  loop_.Watch(STDIN_FILENO, POLLIN, [this] { OnKeys(); });
  on_screen_ = true;
  return Print(kEnterScreen);
}

void TopSession::LeaveScreen() {
  if (!std::exchange(on_screen_, false)) return;
  (void)Print(kLeaveScreen);
  terminal_->Restore();
}

void TopSession::OnSignal() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGWINCH || info.ssi_signo == SIGCONT) {
      resized_ = true;
      if (terminal_) terminal_->RawAgain();
    } else if (signal_ == 0) {
      signal_ = static_cast<int>(info.ssi_signo);
    }
  }
}

void TopSession::OnKeys() {
  constexpr char kCtrlC = 3;
  constexpr char kCtrlD = 4;
  char keys[64];
  const ssize_t size = ::read(STDIN_FILENO, keys, sizeof keys);
  if (size == 0 || (size < 0 && errno != EINTR && errno != EAGAIN)) quits_ = true;
  for (ssize_t i = 0; i < size; ++i) {
    if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == kCtrlC || keys[i] == kCtrlD) quits_ = true;
  }
}

void TopSession::Ask(size_t index) {
  Server& server = servers_[index];
  if (!server.connection) {
    absl::StatusOr<Connection> connection = Connection::Open(server.shown.address);
    if (!connection.ok()) return OnAnswer(index, connection.status());
    server.connection.emplace(*std::move(connection));
  }
  ::vmservice::InspectVMRequest request;
  request.set_recursion_limit(24);
  ttrpc::CallOptions options;
  options.timeout =
      globals_.timeout.value_or(std::max<std::chrono::nanoseconds>(delay_, kLeastPatience));
  server.asked = true;
  server.connection->vm().InspectVMAsync(request, options, [this, index](const auto& answer) {
    loop_.Post([this, index, answer] {
      servers_[index].asked = false;
      OnAnswer(index, answer);
    });
  });
}

void TopSession::OnAnswer(size_t index,
                          const absl::StatusOr<::vmservice::InspectVMResponse>& answer) {
  Server& server = servers_[index];
  if (!answer.ok()) {
    server.shown.error = std::string(answer.status().message());
    server.last.reset();
    server.shown.rates.reset();
    // A server that was late is asked again over the same connection.
    if (!absl::IsDeadlineExceeded(answer.status())) server.connection.reset();
    return;
  }
  server.shown.error.clear();
  TopSample sample = ReadTopSample(answer->result(), Clock::now());
  const TopSample& before = server.last ? *server.last : sample;
  server.shown.rates = RatesBetween(before, sample);
  server.last = std::move(sample);
}

bool TopSession::Round(Clock::time_point next) {
  for (size_t i = 0; i < servers_.size() && !ended(); ++i) {
    if (!servers_[i].asked) Ask(i);
  }
  const auto all_answered = [this] {
    return std::none_of(servers_.begin(), servers_.end(),
                        [](const Server& server) { return server.asked; });
  };
  loop_.RunUntil([&] { return ended() || all_answered(); });
  if (ended() || !Show()) return false;
  while (loop_.RunUntil([this] { return ended() || resized_; }, next)) {
    // A terminal of another size shows the same at once.
    resized_ = false;
    if (ended() || !Show()) return false;
  }
  return true;
}

bool TopSession::Show() {
  shown_.clear();
  for (const Server& server : servers_) shown_.push_back(server.shown);
  if (globals_.json) return Print(TopJson(shown_));
  const std::string clock = absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone());
  if (!on_screen_) return Print(absl::StrCat(TopText(shown_, clock, {}), "\n"));
  TopSize size;
  winsize window{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col != 0) {
    size = {.columns = window.ws_col, .rows = window.ws_row};
  }
  std::string text = TopText(shown_, clock, size);
  text.pop_back();  // a newline on the last row would scroll
  return Print(absl::StrCat(
      kHome, absl::StrReplaceAll(text, {{"\n", absl::StrCat(kClearToEndOfLine, "\r\n")}}),
      kClearToEndOfLine, kClearBelow));
}

int TopSession::Run() {
  const bool batch = options_.batch || globals_.json || ::isatty(STDOUT_FILENO) == 0 ||
                     !TerminalMode::Usable(STDIN_FILENO);
  if (!batch && !EnterScreen()) return kExitError;
  bool goes_on = true;
  if (batch) {
    // What there is before the first round says what goes on in it.
    for (size_t i = 0; i < servers_.size(); ++i) Ask(i);
    goes_on = !loop_.RunUntil([this] { return ended(); }, Clock::now() + delay_);
  }
  for (uint64_t round = 1; goes_on; ++round) {
    const bool last = round == options_.count;
    goes_on = Round(last ? Clock::now() : Clock::now() + delay_) && !last;
  }
  LeaveScreen();
  if (signal_ != 0) return kExitSignal + signal_;
  const bool reached = std::any_of(servers_.begin(), servers_.end(),
                                   [](const Server& server) { return server.shown.error.empty(); });
  return reached ? kExitOk : kExitError;
}

}  // namespace

void AddTopVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(&commands.app(), "top",
                                          "Show what VMs are doing, again and again", kExamples);
  const auto options = std::make_shared<TopOptions>();
  verb->add_option("addresses", options->addresses,
                   "Sockets of the servers; without: that of --address")
      ->type_name("FILE");
  AddDuration(*verb, "-d,--delay", &options->delay, "Time between two rounds; without: 1s");
  verb->add_option("-n,--count", options->count, "Rounds before it ends; without: no end")
      ->type_name("N");
  verb->add_flag("--batch", options->batch,
                 "Print each round below the last one, as without a terminal");
  commands.OnVerb(verb, [options](const Globals& globals) -> int {
    if (options->addresses.empty() && !globals.address.empty()) {
      options->addresses.push_back(globals.address);
    }
    if (options->addresses.empty()) {
      PrintError("top: which server? Name sockets, or one with --address or $BOTHY_ADDRESS");
      return kExitUsage;
    }
    return TopSession(globals, *options).Run();
  });
}

}  // namespace bothy::bothyctl
