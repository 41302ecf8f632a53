#include "cmd/bothyctl/guest_port.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/error_text.h"
#include "support/unix_socket.h"

namespace bothy::bothyctl {
namespace {

constexpr size_t kCopyBytes = size_t{64} * 1024;
// "OK 4294967295\n".
constexpr size_t kMostAnswer = 14;

bool WriteAll(int fd, const char* bytes, size_t size) {
  while (size != 0) {
    const ssize_t result = ::write(fd, bytes, size);
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) return false;
    bytes += result;
    size -= static_cast<size_t>(result);
  }
  return true;
}

enum class CopyEnd : uint8_t {
  kEnd,     // nothing more comes
  kBroken,  // either side is no more
};

CopyEnd Copy(int from, int to) {
  std::vector<char> bytes(kCopyBytes);
  while (true) {
    const ssize_t result = ::read(from, bytes.data(), bytes.size());
    if (result < 0 && errno == EINTR) continue;
    if (result == 0) return CopyEnd::kEnd;
    if (result < 0 || !WriteAll(to, bytes.data(), static_cast<size_t>(result))) {
      return CopyEnd::kBroken;
    }
  }
}

// Waits until neither direction of `socket` goes on.
void AwaitEnd(int socket) {
  pollfd state{.fd = socket, .events = 0, .revents = 0};
  while (::poll(&state, 1, -1) < 0 && errno == EINTR) {
  }
}

// "OK <port>\n".
bool IsAcceptance(std::string_view answer) {
  if (!answer.starts_with("OK ") || !answer.ends_with('\n')) return false;
  answer.remove_prefix(3);
  answer.remove_suffix(1);
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), port);
  return error == std::errc() && end == answer.data() + answer.size();
}

}  // namespace

void AddVsockPath(CLI::App& verb, std::string* path) {
  verb.add_option("--vsock", *path,
                  "The VM's socket for that (hvsocket_config.path); without: the server is asked")
      ->type_name("PATH");
}

std::optional<std::string> VsockPathOrTell(const std::string& given, const Globals& globals,
                                           int* status) {
  if (!given.empty()) return given;
  std::optional<Connection> connection = ConnectOrTell(globals, status);
  if (!connection) return std::nullopt;
  ::vmservice::InspectVMRequest request;
  request.set_query("devices/vsock0/path");
  const auto response = connection->vm().InspectVM(request, globals.CallOptions());
  if (!response.ok()) {
    *status = Tell("InspectVM", response.status());
    return std::nullopt;
  }
  if (!response->result().string_value().empty()) return response->result().string_value();
  *status = Tell(
      "hvsocket_config.path",
      absl::FailedPreconditionError("the VM was created without it; create it with --vsock PATH"));
  return std::nullopt;
}

absl::StatusOr<UniqueFd> ConnectToGuest(const std::string& path, uint32_t port) {
  ASSIGN_OR_RETURN(UniqueFd socket, ConnectUnix(path, ConnectMode::kBlocking));
  const std::string line = absl::StrCat("CONNECT ", port, "\n");
  std::string answer;
  // Byte by byte: what is behind the line is the guest's.
  bool answers = WriteAll(socket.get(), line.data(), line.size());
  while (answers && answer.size() < kMostAnswer && !absl::EndsWith(answer, "\n")) {
    char byte = 0;
    const ssize_t result = ::read(socket.get(), &byte, 1);
    if (result < 0 && errno == EINTR) continue;
    answers = result == 1;
    if (answers) answer.push_back(byte);
  }
  if (IsAcceptance(answer)) return socket;
  if (!answer.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " answers \"", OneLine(answer),
                     "\"; is it the socket that a VM was created with (--vsock PATH)?"));
  }
  return absl::UnavailableError(
      absl::StrCat("the guest doesn't accept connections to port ", port));
}

absl::Status PassBytes(int input, int output, int socket) {
  std::thread up;
  try {
    up = std::thread([input, socket] {
      const CopyEnd end = Copy(input, socket);
      (void)::shutdown(socket, end == CopyEnd::kEnd ? SHUT_WR : SHUT_RDWR);
    });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("starting a thread: ", error.what()));
  }
  // Nobody hears the guest any more: it needn't go on.
  if (Copy(socket, output) == CopyEnd::kBroken) (void)::shutdown(socket, SHUT_RDWR);
  // Who reads `output` sees the end.
  if (::shutdown(output, SHUT_WR) != 0) ::close(output);
  AwaitEnd(socket);
  // A thread that still reads is woken, where that can be.
  if (::shutdown(input, SHUT_RD) == 0 || errno == ENOTCONN) {
    up.join();
  } else {
    up.detach();
  }
  return absl::OkStatus();
}

}  // namespace bothy::bothyctl
