// bothy: the server. One process, one VM, one ttrpc socket (docs/bothy.md).

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "activation.h"
#include "machine/pc_machine.h"
#include "metrics/endpoint.h"
#include "metrics/listen_address.h"
#include "parent_watch.h"
#include "socket_access.h"
#include "support/event_loop.h"
#include "support/log.h"
#include "support/trace.h"
#include "ttrpc/server.h"
#include "ttrpc/unix_socket.h"
#include "vmservice/service.h"

namespace bothy {
namespace {

struct Flags {
  std::string socket_path;
  std::vector<uid_t> allowed_uids;
  bool die_with_parent = false;
  std::string metrics;
  std::string trace;
  LogOptions log;
};

constexpr char kFooter[] = R"(
Examples:
  bothy --ttrpc /run/vm1.sock
      Serves on /run/vm1.sock; standard output is closed as soon as clients can connect.
  bothy --ttrpc /run/vm1.sock --allow-uid 1000 --log-format json 2>vm1.log
      Lets user 1000 drive the VM, and writes its log as JSON.
  bothy --ttrpc /run/vm1.sock --metrics 127.0.0.1:9100
      Shows Prometheus the VM's counters at http://127.0.0.1:9100/metrics.
  bothy --ttrpc /run/vm1.sock --trace /tmp/vm1.json
      Writes a timeline that https://ui.perfetto.dev shows.
  bothyctl run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0
      Starts a server, boots a VM in it and shows its console.

SIGTERM and SIGINT tear the VM down and end the server.)";

// What remains of a graceful end for clients that are slow to read their last answers.
constexpr std::chrono::milliseconds kFlushLimit{1000};

ttrpc::ServerOptions MakeServerOptions(const Flags& flags) {
  std::vector<uid_t> allowed = flags.allowed_uids;
  allowed.push_back(0);
  allowed.push_back(::geteuid());
  ttrpc::ServerOptions options;
  options.authorize = [allowed = std::move(allowed)](const ttrpc::PeerCredentials& peer) {
    if (std::find(allowed.begin(), allowed.end(), peer.uid) != allowed.end()) {
      return absl::OkStatus();
    }
    LogWarning("bothy", absl::StrCat("refused uid ", peer.uid, ", pid ", peer.pid));
    return absl::PermissionDeniedError(absl::StrCat("user id ", peer.uid,
                                                    " may not speak to this server; it was started "
                                                    "by another user, see bothy --allow-uid"));
  };
  return options;
}

// End-of-file on standard output tells whoever started us that clients can connect. Descriptor 1
// stays taken, so that no later file becomes "standard output".
absl::Status CloseStandardOutput() {
  UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!null || ::dup2(null.get(), STDOUT_FILENO) < 0) return ErrnoStatus(errno, "/dev/null");
  return absl::OkStatus();
}

// Has something behind descriptors 0 to 2, whatever the process was started with: else the first
// files opened would be taken for the standard streams.
bool OpenStandardStreams() {
  int fd;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  return fd >= 0 && ::close(fd) == 0;
}

absl::StatusOr<std::unique_ptr<metrics::Endpoint>> ServeMetrics(const std::string& where,
                                                                EventLoop& control,
                                                                vmservice::VmService& service) {
  ASSIGN_OR_RETURN(const metrics::ListenAddress address, metrics::ListenAddress::Parse(where));
  ASSIGN_OR_RETURN(metrics::ListeningSocket socket, metrics::Listen(address));
  LogInfo("metrics", absl::StrCat("serving on ", socket.name));
  return metrics::Endpoint::Create(std::move(socket),
                                   [&control, &service](metrics::Endpoint::Look look) {
                                     control.Post([&service, look = std::move(look)]() mutable {
                                       service.InspectAll(std::move(look));
                                     });
                                   },
                                   {});
}

absl::Status Serve(const Flags& flags) {
  TraceOperation startup("startup", "until ready");
  ASSIGN_OR_RETURN(std::vector<UniqueFd> activated, TakeActivationSockets());
  if (activated.empty() && flags.socket_path.empty()) {
    return absl::InvalidArgumentError(
        "--ttrpc: give the path of the socket to serve on, or pass one by socket activation");
  }
  EventLoop control;
  ttrpc::SocketFile file;
  std::function<void()> end;
  vmservice::VmService service(control, machine::PcMachineFactory(control), [&] { end(); });
  ASSIGN_OR_RETURN(std::unique_ptr<ttrpc::Server> server,
                   ttrpc::Server::Create(control, MakeServerOptions(flags)));
  end = [&] {
    // While the socket still listens: nobody can have put another one there yet.
    file.Remove();
    server->CloseWhenFlushed(kFlushLimit, [&] { control.Stop(); });
  };
  RETURN_IF_ERROR(server->Register(service));

  asio::signal_set signals(control.context(), SIGTERM, SIGINT);
  signals.async_wait([&](const asio::error_code& error, int number) {
    if (error) return;
    LogInfo("bothy", absl::StrCat("ending on signal ", number));
    service.Quit();
  });
  std::unique_ptr<ParentWatch> parent;
  if (flags.die_with_parent) {
    ASSIGN_OR_RETURN(parent, ParentWatch::Create(control, [&] {
                       LogInfo("bothy", "ending with the parent process");
                       service.Quit();
                     }));
  }

  if (activated.empty()) {
    absl::StatusOr<ttrpc::BoundSocket> bound = ttrpc::ListenUnix(flags.socket_path);
    if (!bound.ok())
      return WithContext(bound.status(), absl::StrCat("--ttrpc ", flags.socket_path));
    RETURN_IF_ERROR(WithContext(GrantAccess(flags.socket_path, flags.allowed_uids), "--allow-uid"));
    file = std::move(bound->file);
    activated.push_back(std::move(bound->fd));
  }
  std::unique_ptr<metrics::Endpoint> endpoint;
  if (!flags.metrics.empty()) {
    absl::StatusOr<std::unique_ptr<metrics::Endpoint>> created =
        ServeMetrics(flags.metrics, control, service);
    RETURN_IF_ERROR(WithContext(created.status(), absl::StrCat("--metrics ", flags.metrics)));
    endpoint = *std::move(created);
  }
  for (UniqueFd& socket : activated) RETURN_IF_ERROR(server->Listen(std::move(socket)));
  RETURN_IF_ERROR(CloseStandardOutput());
  startup.End();
  vmservice::VmService::WarmUp();
  // The control thread is the process's first one, which keeps the program's name.
  control.Run();
  return absl::OkStatus();
}

// An option that takes one of these words.
template <typename T>
CLI::Option* AddChoice(CLI::App& app, const std::string& name, T* value,
                       const std::string& description,
                       std::vector<std::pair<std::string, T>> words) {
  return app.add_option_function<std::string>(
      name,
      [name, value, words = std::move(words)](const std::string& word) {
        std::string known;
        for (const auto& [text, meaning] : words) {
          if (text == word) {
            *value = meaning;
            return;
          }
          absl::StrAppend(&known, known.empty() ? "" : ", ", text);
        }
        throw CLI::ValidationError(name, absl::StrCat("\"", word, "\" is none of ", known));
      },
      description);
}

// A guest's connections to the host take a descriptor each; nothing here counts on few or low ones.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  // One heap for all threads. By default each thread that meets another at the heap's lock gets one
  // of its own, for ever: with a thread a vCPU, a server's mappings and private memory would grow
  // with chance and with every VM. Hot paths don't allocate.
  ::mallopt(M_ARENA_MAX, 1);
  if (!OpenStandardStreams()) return 1;
  // Peers that go away are errors of their connections, not of the process.
  std::signal(SIGPIPE, SIG_IGN);
  // A disk image that may grow no further is an I/O error for the guest.
  std::signal(SIGXFSZ, SIG_IGN);
  RaiseDescriptorLimit();
  Flags flags;
  CLI::App app("A virtual machine service: one VM, driven over a ttrpc socket (vmservice.VM).",
               "bothy");
  app.footer(kFooter);
  app.set_version_flag("--version", "bothy " BOTHY_VERSION);
  app.add_option("--ttrpc", flags.socket_path,
                 "Unix socket to serve on; a stale one is replaced. Sockets passed by systemd "
                 "(LISTEN_FDS) are used instead when there are any")
      ->type_name("PATH");
  app.add_option("--allow-uid", flags.allowed_uids,
                 "further user id that may connect, beside root and this one; may be repeated")
      ->type_name("UID");
  app.add_flag("--die-with-parent", flags.die_with_parent,
               "end as on SIGTERM when the process that started this one ends");
  app.add_option("--metrics", flags.metrics,
                 "Show the VM's counters to Prometheus at /metrics there: unix:PATH, HOST:PORT, or "
                 "port 0 for a free one (the log says which). Whoever can connect can read them")
      ->type_name("ADDRESS");
  app.add_option("--trace", flags.trace,
                 "Write a timeline of the server's work to FILE, for chrome://tracing or "
                 "ui.perfetto.dev")
      ->type_name("FILE");
  AddChoice(app, "--log-level", &flags.log.level, "debug, info, warning or error",
            {{"debug", LogLevel::kDebug},
             {"info", LogLevel::kInfo},
             {"warning", LogLevel::kWarning},
             {"error", LogLevel::kError}})
      ->type_name("LEVEL");
  AddChoice(app, "--log-format", &flags.log.format,
            "text or json, one record a line on standard error",
            {{"text", LogFormat::kText}, {"json", LogFormat::kJson}})
      ->type_name("FORMAT");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "bothy: %s (bothy --help tells more)\n", error.what());
    return 2;
  }
  ConfigureLogging(flags.log);
  absl::Status status =
      flags.trace.empty() ? absl::OkStatus() : WithContext(StartTrace(flags.trace), "--trace");
  if (status.ok()) status = Serve(flags);
  StopTrace();
  if (!status.ok()) {
    std::fprintf(stderr, "bothy: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace bothy

int main(int argc, char** argv) { return bothy::Main(argc, argv); }
