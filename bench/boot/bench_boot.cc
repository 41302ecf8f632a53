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
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/arguments.h"
#include "bench/process.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::bench {
namespace {

constexpr std::string_view kInitLine = "bothy-guest: init ";

struct Settings {
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

  void Print(const Settings& settings) const {
    if (!settings.console.empty()) std::ofstream(settings.console) << console_;
    std::printf("{\"label\": \"%s\", \"guest_monotonic\": %lld, \"console_bytes\": %zu",
                settings.label.c_str(), static_cast<long long>(guest_monotonic_), console_.size());
    for (const auto& [name, moment] : moments_) {
      std::printf(", \"%s\": %lld", name.c_str(), static_cast<long long>(moment));
    }
    // While the VM is there: KVM's counters go with it.
    const auto counters = ReadKvmCounters(settings.kvm);
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

vmservice::CreateVMRequest CreateRequest(const Settings& settings, const std::string& console) {
  vmservice::CreateVMRequest request;
  vmservice::VMConfig& config = *request.mutable_config();
  config.mutable_memory_config()->set_memory_mb(settings.memory_mib);
  config.mutable_memory_config()->set_allow_overcommit(true);
  config.mutable_processor_config()->set_processor_count(settings.cpus);
  config.mutable_direct_boot()->set_kernel_path(settings.kernel);
  config.mutable_direct_boot()->set_initrd_path(settings.initrd);
  config.mutable_direct_boot()->set_kernel_cmdline(settings.cmdline);
  vmservice::SerialConfig::Config& port = *config.mutable_serial_config()->add_ports();
  port.set_port(0);
  port.set_socket_path(console);
  return request;
}

void BootServer(const Settings& settings, const std::string& bothy) {
  const Folder folder;
  const std::string errors = folder.File("errors");
  Process process({bothy, "--ttrpc", folder.File("server")}, errors);
  const Time deadline = process.started() + settings.timeout;
  Timeline timeline(process.started(), deadline, errors);
  if (!process.WaitForEndOfOutput(deadline)) Fail("the server isn't ready in time");
  timeline.Note("ready");
  const auto connection = Require(ttrpc::Client::Connect(folder.File("server")), Tail(errors));
  vmservice::VMClient vm(*connection);
  const std::string console = folder.File("com1");
  Require(vm.CreateVM(CreateRequest(settings, console)), "CreateVM");
  timeline.Note("created");
  const UniqueFd serial = Require(ConnectUnix(console, ConnectMode::kBlocking), "the console");
  Require(vm.ResumeVM({}), "ResumeVM");
  timeline.Note("resumed");
  timeline.ReadConsole(serial.get(), settings.until);
  timeline.Print(settings);
  Require(vm.Quit({}), "Quit");
  if (process.Wait() != 0) Fail("the server didn't end well:\n" + Tail(errors));
}

void BootCommand(const Settings& settings, const std::vector<std::string>& command) {
  const Folder folder;
  const std::string errors = folder.File("errors");
  const Process process(command, errors);
  Timeline timeline(process.started(), process.started() + settings.timeout, errors);
  timeline.ReadConsole(process.output(), settings.until);
  timeline.Print(settings);
}

int Main(const std::vector<std::string>& all_words) {
  Settings settings;
  const auto [mode, words] = TakeOptions(
      all_words,
      {
          {"--label", [&](const std::string& value) { settings.label = value; }},
          {"--kernel", [&](const std::string& value) { settings.kernel = value; }},
          {"--initrd", [&](const std::string& value) { settings.initrd = value; }},
          {"--cmdline", [&](const std::string& value) { settings.cmdline = value; }},
          {"--cpus", [&](const std::string& value) { settings.cpus = std::stoul(value); }},
          {"--memory", [&](const std::string& value) { settings.memory_mib = std::stoull(value); }},
          {"--timeout",
           [&](const std::string& value) {
             settings.timeout = std::chrono::seconds(std::stoul(value));
           }},
          {"--console", [&](const std::string& value) { settings.console = value; }},
          {"--until", [&](const std::string& value) { settings.until = value; }},
          {"--kvm", [&](const std::string& value) { settings.kvm = value; }},
      });
  if (mode == "server" && words.size() == 1) {
    BootServer(settings, words[0]);
  } else if (mode == "command" && !words.empty()) {
    BootCommand(settings, words);
  } else {
    Fail("usage: bench_boot [OPTION VALUE]... server BOTHY | command WORD...");
  }
  return 0;
}

}  // namespace
}  // namespace bothy::bench

int main(int argc, char** argv) { return bothy::bench::Main({argv + 1, argv + argc}); }
