// One boot of a Linux guest, timed from outside: from the start of the VMM's process to the first
// line of the guest's init (tests/guest/README.md).
//
//   bench_boot [OPTION VALUE]... server BOTHY    our server, driven over the VM service
//   bench_boot [OPTION VALUE]... command WORD... a VMM whose standard output is the guest's console
//
// Options: --label TEXT, --kernel PATH, --initrd PATH, --cmdline TEXT, --cpus N, --memory MIB (what
// the server is asked for; a command names its own), --timeout SECONDS, --console PATH (keeps what
// the guest printed), --until TEXT (reads on until the guest has printed that, too), --kvm FOLDER
// (of KVM's counters, usually /sys/kernel/debug/kvm).
//
// Prints one line of JSON with moments in ns since just before the fork, by name, in order.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/process.h"
#include "support/unique_fd.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::bench {
namespace {

constexpr std::string_view kInitLine = "bothy-guest: init ";

struct Options {
  std::string label = "vmm";
  std::string kernel;
  std::string initrd;
  std::string cmdline;
  uint32_t cpus = 1;
  uint64_t memory_mib = 512;
  std::chrono::seconds timeout{180};
  std::string console;
  std::string until;
  std::string kvm;
};

// KVM's counters of all VMs that there are, those of `kCounters` that `folder` has.
std::vector<std::pair<std::string, int64_t>> ReadKvmCounters(const std::string& folder) {
  constexpr const char* kCounters[] = {
      "exits",    "io_exits",  "mmio_exits",     "halt_exits", "irq_exits",  "irq_window_exits",
      "pf_taken", "tlb_flush", "insn_emulation", "hypercalls", "fpu_reload", "host_state_reload"};
  std::vector<std::pair<std::string, int64_t>> values;
  for (const char* const name : kCounters) {
    std::ifstream file(folder + "/" + name);
    if (int64_t value = 0; file >> value) values.emplace_back(name, value);
  }
  return values;
}

// The number that `text` begins with; none while its digits may not be complete.
std::optional<int64_t> CompleteNumber(std::string_view text) {
  const size_t digits = text.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
  return std::strtoll(std::string(text.substr(0, digits)).c_str(), nullptr, 10);
}

// A connection to a console.
UniqueFd ConnectUnix(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) Fail("too long a path: " + path);
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Fail(path + ": " + std::strerror(errno));
  }
  return fd;
}

// What is read from the guest's console, and when things happened.
class Timeline {
 public:
  Timeline(Time start, Time deadline, const std::string& errors)
      : start_(start), deadline_(deadline), errors_(errors) {}

  void Note(std::string_view name, Time now = Clock::now()) {
    moments_.emplace_back(name, Nanoseconds(now - start_));
  }

  // Reads the guest's console from `fd` until init's line, and until it has printed `until`.
  void ReadConsole(int fd, const std::string& until) {
    while (guest_monotonic_ == 0) {
      const Time now = ReadMore(fd);
      if (!seen_output_) Note("first_output", now);
      seen_output_ = true;
      if (FindInitLine()) Note("init", now);
    }
    while (console_.find(until) == std::string::npos) ReadMore(fd);
  }

  void Print(const Options& options) const {
    if (!options.console.empty()) std::ofstream(options.console) << console_;
    std::printf("{\"label\": \"%s\", \"guest_monotonic\": %lld, \"console_bytes\": %zu",
                options.label.c_str(), static_cast<long long>(guest_monotonic_), console_.size());
    for (const auto& [name, moment] : moments_) {
      std::printf(", \"%s\": %lld", name.c_str(), static_cast<long long>(moment));
    }
    // While the VM is there: KVM's counters go with it.
    const auto counters = ReadKvmCounters(options.kvm);
    for (size_t i = 0; i < counters.size(); ++i) {
      std::printf("%s\"%s\": %lld", i == 0 ? ", \"kvm\": {" : ", ", counters[i].first.c_str(),
                  static_cast<long long>(counters[i].second));
    }
    std::printf("%s}\n", counters.empty() ? "" : "}");
    std::fflush(stdout);
  }

 private:
  // Appends what `fd` has next to the console's text; when that was.
  Time ReadMore(int fd) {
    char buffer[4096];
    for (;;) {
      if (!WaitReadable(fd, deadline_)) Fail("the guest isn't done in time:\n" + console_);
      const ssize_t size = ::read(fd, buffer, sizeof buffer);
      const Time now = Clock::now();
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) Fail("the console has ended:\n" + console_ + "\n" + Tail(errors_));
      console_.append(buffer, static_cast<size_t>(size));
      return now;
    }
  }

  bool FindInitLine() {
    const size_t line = console_.find(kInitLine);
    if (line == std::string::npos) return false;
    const auto number = CompleteNumber(std::string_view(console_).substr(line + kInitLine.size()));
    guest_monotonic_ = number.value_or(0);
    return number.has_value();
  }

  const Time start_;
  const Time deadline_;
  const std::string errors_;
  std::vector<std::pair<std::string, int64_t>> moments_;
  std::string console_;
  bool seen_output_ = false;
  int64_t guest_monotonic_ = 0;  // the guest's clock when init wrote its line, ns
};

template <typename T>
T Require(absl::StatusOr<T> result, std::string_view call) {
  if (!result.ok()) Fail(std::string(call) + ": " + std::string(result.status().message()));
  return *std::move(result);
}

vmservice::CreateVMRequest CreateRequest(const Options& options, const std::string& console) {
  vmservice::CreateVMRequest request;
  vmservice::VMConfig& config = *request.mutable_config();
  config.mutable_memory_config()->set_memory_mb(options.memory_mib);
  config.mutable_memory_config()->set_allow_overcommit(true);
  config.mutable_processor_config()->set_processor_count(options.cpus);
  config.mutable_direct_boot()->set_kernel_path(options.kernel);
  config.mutable_direct_boot()->set_initrd_path(options.initrd);
  config.mutable_direct_boot()->set_kernel_cmdline(options.cmdline);
  vmservice::SerialConfig::Config& port = *config.mutable_serial_config()->add_ports();
  port.set_port(0);
  port.set_socket_path(console);
  return request;
}

void BootServer(const Options& options, const std::string& bothy) {
  const Folder folder;
  const std::string errors = folder.File("errors");
  Process process({bothy, "--ttrpc", folder.File("server")}, errors);
  const Time deadline = process.started() + options.timeout;
  Timeline timeline(process.started(), deadline, errors);
  if (!process.WaitForEndOfOutput(deadline)) Fail("the server isn't ready in time");
  timeline.Note("ready");
  const auto connection = Require(ttrpc::Client::Connect(folder.File("server")), Tail(errors));
  vmservice::VMClient vm(*connection);
  const std::string console = folder.File("com1");
  Require(vm.CreateVM(CreateRequest(options, console)), "CreateVM");
  timeline.Note("created");
  const UniqueFd serial = ConnectUnix(console);
  Require(vm.ResumeVM({}), "ResumeVM");
  timeline.Note("resumed");
  timeline.ReadConsole(serial.get(), options.until);
  timeline.Print(options);
  Require(vm.Quit({}), "Quit");
  if (process.Wait() != 0) Fail("the server didn't end well:\n" + Tail(errors));
}

void BootCommand(const Options& options, const std::vector<std::string>& command) {
  const Folder folder;
  const std::string errors = folder.File("errors");
  const Process process(command, errors);
  Timeline timeline(process.started(), process.started() + options.timeout, errors);
  timeline.ReadConsole(process.output(), options.until);
  timeline.Print(options);
}

int Main(std::vector<std::string> words) {
  Options options;
  const std::map<std::string_view, std::function<void(const std::string&)>> setters{
      {"--label", [&](const std::string& value) { options.label = value; }},
      {"--kernel", [&](const std::string& value) { options.kernel = value; }},
      {"--initrd", [&](const std::string& value) { options.initrd = value; }},
      {"--cmdline", [&](const std::string& value) { options.cmdline = value; }},
      {"--cpus", [&](const std::string& value) { options.cpus = std::stoul(value); }},
      {"--memory", [&](const std::string& value) { options.memory_mib = std::stoull(value); }},
      {"--timeout",
       [&](const std::string& value) {
         options.timeout = std::chrono::seconds(std::stoul(value));
       }},
      {"--console", [&](const std::string& value) { options.console = value; }},
      {"--until", [&](const std::string& value) { options.until = value; }},
      {"--kvm", [&](const std::string& value) { options.kvm = value; }},
  };
  size_t at = 0;
  for (; at + 1 < words.size() && setters.contains(words[at]); at += 2) {
    setters.at(words[at])(words[at + 1]);
  }
  const std::string mode = at < words.size() ? words[at] : "";
  words.erase(words.begin(),
              words.begin() + static_cast<ptrdiff_t>(std::min(at + 1, words.size())));
  if (mode == "server" && words.size() == 1) {
    BootServer(options, words[0]);
  } else if (mode == "command" && !words.empty()) {
    BootCommand(options, words);
  } else {
    Fail("usage: bench_boot [OPTION VALUE]... server BOTHY | command WORD...");
  }
  return 0;
}

}  // namespace
}  // namespace bothy::bench

int main(int argc, char** argv) { return bothy::bench::Main({argv + 1, argv + argc}); }
