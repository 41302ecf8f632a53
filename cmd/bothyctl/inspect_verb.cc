#include <charconv>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/live_screen.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/poll_loop.h"
#include "cmd/bothyctl/value_tree.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::InspectVMRequest;
using Answer = absl::StatusOr<::vmservice::InspectVMResponse>;

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock inspect
      the names and values at the root; folders end with "/"
  bothyctl -a vm.sock inspect chipset/com1 --depth all
      everything below that path
  bothyctl -a vm.sock inspect processors --depth 1 --json
      for a script
  bothyctl -a vm.sock inspect devices/net0 --depth all --watch
      again each second; q or Ctrl-C ends it
  bothyctl -a vm.sock inspect vm --watch --delay 5s --count 12 > minute.txt
      without a terminal each look is printed below the last one)";

struct InspectOptions {
  InspectVMRequest request;
  bool watch = false;
  std::optional<std::chrono::nanoseconds> delay;
  uint64_t count = 0;  // of looks; 0: for ever
};

absl::StatusOr<uint32_t> ParseDepth(std::string_view text) {
  if (text == "all") return std::numeric_limits<uint32_t>::max();
  uint32_t depth = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), depth);
  if (error == std::errc() && end == text.data() + text.size()) return depth;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(text), "\" is neither a number of levels nor \"all\""));
}

// Shows the answers to one question, again and again. The first that is an error ends it: what was
// looked at is gone.
int Watch(const Globals& globals, const InspectOptions& options) {
  const std::chrono::nanoseconds delay = options.delay.value_or(std::chrono::seconds(1));
  PollLoop loop;
  std::optional<Answer> answer;
  int status = kExitOk;
  // Its thread, which begins with the first look, posts to the loop.
  std::optional<Connection> connection = ConnectOrTell(globals, &status);
  if (!connection) return status;
  LiveScreen screen(loop);
  const auto fails = [&](const char* what, const absl::Status& error) {
    // Or what is told would go with the screen.
    screen.Leave();
    status = Tell(what, error);
    return false;
  };
  const auto show = [&]() -> bool {
    const google::protobuf::Value& value = (*answer)->result();
    if (!globals.json) {
      const std::string text = ValueTreeText(value);
      return screen.on_terminal() ? screen.Show(CutToSize(text, screen.size()))
                                  : screen.Show(absl::StrCat(text, "\n"));
    }
    const absl::StatusOr<std::string> json = ToJson(value);
    return json.ok() ? screen.Show(*json) : fails("--json", json.status());
  };
  const auto look = [&] {
    answer.reset();
    connection->vm().InspectVMAsync(options.request, globals.CallOptions(), [&](const Answer& got) {
      loop.Post([&, got] { answer = got; });
    });
    if (!screen.Await([&] { return answer.has_value(); })) return false;
    return answer->ok() ? show() : fails("InspectVM", answer->status());
  };

  using Where = LiveScreen::Where;
  if (!screen.Begin(globals.json ? Where::kBelow : Where::kTerminalIfUsable)) return kExitError;
  bool goes_on = true;
  for (uint64_t round = 1; goes_on; ++round) {
    const auto next = PollLoop::Clock::now() + delay;
    goes_on = look() && round != options.count && screen.Rest(next, show);
  }
  screen.Leave();
  return status != kExitOk ? status : screen.ExitStatus();
}

int ShowOnce(const Globals& globals, const InspectVMRequest& request) {
  int status = kExitOk;
  std::optional<Connection> connection = ConnectOrTell(globals, &status);
  if (!connection) return status;
  const Answer answer = connection->vm().InspectVM(request, globals.CallOptions());
  if (!answer.ok()) return Tell("InspectVM", answer.status());
  return PrintAnswer<google::protobuf::Value>(globals, answer->result(), ValueTreeText);
}

}  // namespace

void AddInspectVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(
      &commands.app(), "inspect", "Show a part of the VM's state tree (InspectVM)", kExamples);
  const auto options = std::make_shared<InspectOptions>();
  verb->add_option_function<std::string>(
          "path", [options](const std::string& path) { options->request.set_query(path); },
          "A path from the root, names separated by /; without: the root")
      ->type_name("NODE");
  AddParsed<uint32_t>(
      *verb, "--depth", "Levels below that node to fill in, or \"all\"; without: 0, its own values",
      ParseDepth, [options](uint32_t depth) { options->request.set_recursion_limit(depth); })
      ->type_name("N");
  CLI::Option* const watch =
      verb->add_flag("--watch", options->watch, "Show it again and again, until it is ended");
  AddDuration(*verb, "-d,--delay", &options->delay,
              "With --watch: time between two looks; without: 1s")
      ->needs(watch);
  verb->add_option("-n,--count", options->count,
                   "With --watch: looks before it ends; without: no end")
      ->type_name("N")
      ->needs(watch);
  commands.OnVerb(verb, [options](const Globals& globals) -> int {
    return options->watch ? Watch(globals, *options) : ShowOnce(globals, options->request);
  });
}

}  // namespace bothy::bothyctl
