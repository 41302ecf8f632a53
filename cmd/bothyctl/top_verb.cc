// `bothyctl top`: asks every server for its state tree again and again, and shows what goes on.
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/live_screen.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/poll_loop.h"
#include "cmd/bothyctl/top_view.h"
#include "cmd/bothyctl/verbs.h"

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

struct TopOptions {
  std::vector<std::string> addresses;
  std::optional<std::chrono::nanoseconds> delay;
  uint64_t count = 0;  // of rounds; 0: for ever
  bool batch = false;
};

class TopSession {
 public:
  TopSession(const Globals& globals, const TopOptions& options);
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

  void Ask(size_t index);
  void OnAnswer(size_t index, const absl::StatusOr<::vmservice::InspectVMResponse>& answer);
  // Asks all servers and waits for them, then until `next`. False: it is to end.
  bool Round(Clock::time_point next);
  [[nodiscard]] bool Show();

  const Globals& globals_;
  const TopOptions& options_;
  const std::chrono::nanoseconds delay_;
  PollLoop loop_;
  LiveScreen screen_{loop_};
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
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (!servers_[i].asked) Ask(i);
  }
  const auto all_answered = [this] {
    return std::none_of(servers_.begin(), servers_.end(),
                        [](const Server& server) { return server.asked; });
  };
  if (!screen_.Await(all_answered) || !Show()) return false;
  return screen_.Rest(next, [this] { return Show(); });
}

bool TopSession::Show() {
  shown_.clear();
  for (const Server& server : servers_) shown_.push_back(server.shown);
  if (globals_.json) return screen_.Show(TopJson(shown_));
  const std::string clock = absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone());
  const std::string text = TopText(shown_, clock, screen_.size());
  return screen_.Show(screen_.on_terminal() ? text : absl::StrCat(text, "\n"));
}

int TopSession::Run() {
  const bool below = options_.batch || globals_.json;
  if (!screen_.Begin(below ? LiveScreen::Where::kBelow : LiveScreen::Where::kTerminalIfUsable)) {
    return kExitError;
  }
  bool goes_on = true;
  if (!screen_.on_terminal()) {
    // What there is before the first round says what goes on in it.
    for (size_t i = 0; i < servers_.size(); ++i) Ask(i);
    goes_on = screen_.Rest(Clock::now() + delay_, [] { return true; });
  }
  for (uint64_t round = 1; goes_on; ++round) {
    const bool last = round == options_.count;
    goes_on = Round(last ? Clock::now() : Clock::now() + delay_) && !last;
  }
  screen_.Leave();
  if (screen_.ExitStatus() != kExitOk) return screen_.ExitStatus();
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
