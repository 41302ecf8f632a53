// A server with FakeVmService in place of `bothy`, started by `bothyctl run --server`.
//
// Takes the flags that bothyctl gives a server. In its environment:
//   FAKE_SERVER_CALLS=FILE   the name of each call is appended there, one a line, and the end
//   FAKE_SERVER_FAILS=TEXT   prints TEXT on standard error and exits with status 3 at once
//   FAKE_SERVER_HANGS=1      never becomes ready
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "support/check.h"
#include "tests/bothyctl/fake_vm_service.h"
#include "ttrpc/server.h"
#include "ttrpc/unix_socket.h"

namespace bothy::bothyctl {
namespace {

void Record(const std::string& what) {
  if (const char* const file = std::getenv("FAKE_SERVER_CALLS")) {
    std::ofstream(file, std::ios::app) << what << '\n';
  }
}

int Main(int argc, char** argv) {
  std::string path;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--ttrpc") == 0 && i + 1 < argc) path = argv[++i];
    if (std::strcmp(argv[i], "--die-with-parent") == 0) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (const char* const text = std::getenv("FAKE_SERVER_FAILS")) {
    std::fprintf(stderr, "%s\n", text);
    return 3;
  }
  if (std::getenv("FAKE_SERVER_HANGS") != nullptr) ::pause();
  std::signal(SIGPIPE, SIG_IGN);

  EventLoop loop;
  std::function<void()> quit;
  FakeVmService service(loop, Record, [&] { quit(); });
  auto server = ttrpc::Server::Create(loop, {});
  CHECK_OK(server);
  quit = [&] { (*server)->CloseWhenFlushed(std::chrono::seconds(5), [&] { loop.Stop(); }); };
  CHECK_OK((*server)->Register(service));
  auto socket = ttrpc::ListenUnix(path);
  CHECK_OK(socket);
  CHECK_OK((*server)->Listen(std::move(socket->fd)));
  ::close(STDOUT_FILENO);
  loop.Run();
  Record("ended");
  return 0;
}

}  // namespace
}  // namespace bothy::bothyctl

int main(int argc, char** argv) { return bothy::bothyctl::Main(argc, argv); }
