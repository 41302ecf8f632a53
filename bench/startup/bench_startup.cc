// How long a VMM needs to have a VM that could run, and what it keeps in memory then.
//
//   bench_startup [OPTION VALUE]... server BOTHY  our server: fork, ready, CreateVM answered
//   bench_startup [OPTION VALUE]... qmp WORD...   QEMU: fork to its QMP greeting. "-qmp ADDRESS" is
//                                                 added to the command
//   bench_startup [OPTION VALUE]... create BOTHY ROUNDS
//                                                 CreateVM on a warm server and the same system
//                                                 calls in this process, by turns
//
// Options: --label TEXT, --memory MIB, --ram NAME (of the memfd that is guest RAM).
//
// Prints one line of JSON; times are in ns, `server`'s and `qmp`'s since just before the fork.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "bench/arguments.h"
#include "bench/process.h"
#include "bench/startup/bare_vm.h"
#include "bench/startup/private_memory.h"
#include "bench/startup/tiny_kernel.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::bench {
namespace {

constexpr std::chrono::seconds kTimeout{60};

struct Settings {
  std::string label = "vmm";
  uint64_t memory_mib = 256;
  std::string ram = "guest-ram";
};

vmservice::CreateVMRequest CreateRequest(const Settings& settings, const std::string& kernel) {
  vmservice::CreateVMRequest request;
  vmservice::VMConfig& config = *request.mutable_config();
  config.mutable_memory_config()->set_memory_mb(settings.memory_mib);
  config.mutable_memory_config()->set_allow_overcommit(true);
  config.mutable_processor_config()->set_processor_count(1);
  config.mutable_direct_boot()->set_kernel_path(kernel);
  return request;
}

void PrintMemory(const PrivateMemory& memory) {
  std::printf(", \"private_kib\": %llu, \"private_dirty_kib\": %llu}\n",
              static_cast<unsigned long long>(memory.total_kib()),
              static_cast<unsigned long long>(memory.dirty_kib));
}

void MeasureServer(const Settings& settings, const std::string& bothy) {
  const Folder folder;
  const std::string errors = folder.File("errors");
  WriteTinyKernel(folder.File("kernel"));
  const vmservice::CreateVMRequest request = CreateRequest(settings, folder.File("kernel"));

  Process process({bothy, "--ttrpc", folder.File("server")}, errors);
  if (!process.WaitForEndOfOutput(process.started() + kTimeout)) Fail("the server isn't ready");
  const Time ready = Clock::now();
  const auto connection = Require(ttrpc::Client::Connect(folder.File("server")), Tail(errors));
  vmservice::VMClient vm(*connection);
  Require(vm.CreateVM(request), "CreateVM");
  const Time created = Clock::now();

  const PrivateMemory memory = ReadPrivateMemory(process.pid(), settings.ram);
  Require(vm.Quit({}), "Quit");
  if (process.Wait() != 0) Fail("the server didn't end well:\n" + Tail(errors));
  std::printf("{\"label\": \"%s\", \"ready\": %lld, \"created\": %lld", settings.label.c_str(),
              static_cast<long long>(Nanoseconds(ready - process.started())),
              static_cast<long long>(Nanoseconds(created - process.started())));
  PrintMemory(memory);
}

// One line of QMP from `fd`.
std::string ReadLine(int fd, Time deadline) {
  std::string line;
  for (char c = 0; c != '\n';) {
    if (!WaitReadable(fd, deadline) || ::read(fd, &c, 1) != 1) Fail("QMP: no answer: " + line);
    line += c;
  }
  return line;
}

void Ask(int fd, std::string_view command, Time deadline) {
  const std::string request = "{\"execute\": \"" + std::string(command) + "\"}\n";
  if (::write(fd, request.data(), request.size()) != static_cast<ssize_t>(request.size())) {
    Fail("QMP: writing");
  }
  const std::string answer = ReadLine(fd, deadline);
  if (answer.find("\"return\"") == std::string::npos) Fail("QMP: " + answer);
}

void MeasureQmp(const Settings& settings, std::vector<std::string> command) {
  const Folder folder;
  const std::string path = folder.File("qmp");
  // QEMU connects to us: no time goes by between its readiness and our notice of it.
  UnixListener bound = Require(UnixListener::Create(path), "the QMP socket");
  const UniqueFd listener = bound.TakeSocket();
  command.insert(command.end(), {"-qmp", "unix:" + path});

  const std::string errors = folder.File("errors");
  const Process process(command, errors);
  const Time deadline = process.started() + kTimeout;
  if (!WaitReadable(listener.get(), deadline)) Fail("no QMP connection:\n" + Tail(errors));
  const UniqueFd qmp(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const std::string greeting_line = ReadLine(qmp.get(), deadline);
  const Time greeting = Clock::now();
  if (greeting_line.find("\"QMP\"") == std::string::npos) Fail("QMP: " + greeting_line);
  // The greeting may come from a thread of its own; an answer comes from the finished machine.
  Ask(qmp.get(), "qmp_capabilities", deadline);
  Ask(qmp.get(), "query-status", deadline);
  const Time answer = Clock::now();

  const PrivateMemory memory = ReadPrivateMemory(process.pid(), settings.ram);
  std::printf("{\"label\": \"%s\", \"greeting\": %lld, \"answer\": %lld", settings.label.c_str(),
              static_cast<long long>(Nanoseconds(greeting - process.started())),
              static_cast<long long>(Nanoseconds(answer - process.started())));
  PrintMemory(memory);
}

void PrintArray(std::string_view name, const std::vector<Clock::duration>& values) {
  std::printf(", \"%.*s\": [", static_cast<int>(name.size()), name.data());
  for (size_t i = 0; i < values.size(); ++i) {
    std::printf("%s%lld", i == 0 ? "" : ", ", static_cast<long long>(Nanoseconds(values[i])));
  }
  std::printf("]");
}

void MeasureCreate(const Settings& settings, const std::string& bothy, size_t rounds) {
  const Folder folder;
  WriteTinyKernel(folder.File("kernel"));
  const vmservice::CreateVMRequest request = CreateRequest(settings, folder.File("kernel"));
  Process process({bothy, "--ttrpc", folder.File("server")}, folder.File("errors"));
  if (!process.WaitForEndOfOutput(process.started() + kTimeout)) Fail("the server isn't ready");
  const auto connection = Require(ttrpc::Client::Connect(folder.File("server")), "connecting");
  vmservice::VMClient vm(*connection);
  const BareHost host;

  std::vector<Clock::duration> calls;
  std::vector<Clock::duration> teardowns;
  std::vector<Clock::duration> bare;
  // The first round warms both up.
  for (size_t round = 0; round <= rounds; ++round) {
    const Time before_call = Clock::now();
    Require(vm.CreateVM(request), "CreateVM");
    const Time after_call = Clock::now();
    Require(vm.TeardownVM({}), "TeardownVM");
    const Time after_teardown = Clock::now();
    const BareVm reference(host, settings.memory_mib << 20);
    const Time after_bare = Clock::now();
    if (round == 0) continue;
    calls.push_back(after_call - before_call);
    teardowns.push_back(after_teardown - after_call);
    bare.push_back(after_bare - after_teardown);
  }
  Require(vm.Quit({}), "Quit");
  std::printf("{\"label\": \"%s\"", settings.label.c_str());
  PrintArray("create", calls);
  PrintArray("teardown", teardowns);
  PrintArray("bare", bare);
  std::printf("}\n");
}

int Main(const std::vector<std::string>& all_words) {
  Settings settings;
  const auto [mode, words] = TakeOptions(
      all_words,
      {
          {"--label", [&](const std::string& value) { settings.label = value; }},
          {"--memory", [&](const std::string& value) { settings.memory_mib = std::stoull(value); }},
          {"--ram", [&](const std::string& value) { settings.ram = value; }},
      });
  if (mode == "server" && words.size() == 1) {
    MeasureServer(settings, words[0]);
  } else if (mode == "qmp" && !words.empty()) {
    MeasureQmp(settings, words);
  } else if (mode == "create" && words.size() == 2) {
    MeasureCreate(settings, words[0], std::stoul(words[1]));
  } else {
    Fail("usage: bench_startup [OPTION VALUE]... server BOTHY | qmp WORD... | create BOTHY ROUNDS");
  }
  return 0;
}

}  // namespace
}  // namespace bothy::bench

int main(int argc, char** argv) { return bothy::bench::Main({argv + 1, argv + argc}); }
