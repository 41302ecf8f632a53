#include "tests/integration/name_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_split.h"
#include "support/check.h"

namespace bothy::integration {
namespace {

constexpr size_t kHeader = 12;
constexpr uint8_t kNoSuchName = 3;
constexpr size_t kTypeAndClass = 4;

std::string AsLabels(const std::string& name) {
  std::string labels;
  for (const absl::string_view label : absl::StrSplit(name, '.')) {
    labels.push_back(static_cast<char>(label.size()));
    labels.append(label.data(), label.size());
  }
  labels.push_back('\0');
  return labels;
}

// What `query` is answered with; empty when it is no question.
std::string Answer(std::string_view query, std::string_view name,
                   const std::array<uint8_t, 4>& address) {
  if (query.size() < kHeader) return "";
  const size_t end = query.find('\0', kHeader);
  if (end == std::string_view::npos || query.size() < end + 1 + kTypeAndClass) return "";
  const std::string_view asked = query.substr(kHeader, end + 1 - kHeader);
  const bool known = asked == name;
  const bool answers = known && query.substr(end + 1, 2) == std::string_view("\0\1", 2);
  std::string reply(query.substr(0, end + 1 + kTypeAndClass));
  reply[2] = '\x84';  // a response, with authority
  reply[3] = static_cast<char>(known ? 0 : kNoSuchName);
  reply.replace(4, 8, std::string_view("\0\1\0\0\0\0\0\0", 8));
  if (answers) {
    reply[7] = 1;
    // The question's name, of type A, class IN, for a minute, of four bytes.
    reply.append(std::string_view("\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4", 12));
    reply.append(reinterpret_cast<const char*>(address.data()), address.size());
  }
  return reply;
}

}  // namespace

NameServer::NameServer(const std::string& address, const std::string& name,
                       const std::string& answer)
    : name_(AsLabels(name)),
      socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
      end_(::eventfd(0, EFD_CLOEXEC)) {
  CHECK(::inet_pton(AF_INET, answer.c_str(), answer_.data()) == 1);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(53);
  CHECK(::inet_pton(AF_INET, address.c_str(), &at.sin_addr) == 1);
  CHECK(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  thread_ = std::thread([this] { Serve(); });
}

NameServer::~NameServer() {
  ::eventfd_write(end_.get(), 1);
  thread_.join();
}

void NameServer::Serve() {
  char query[512];
  for (;;) {
    pollfd polled[] = {{socket_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
    if (::poll(polled, std::size(polled), -1) < 0 && errno != EINTR) return;
    if (polled[1].revents != 0) return;
    if (polled[0].revents == 0) continue;
    sockaddr_storage from{};
    socklen_t from_size = sizeof from;
    const ssize_t n = ::recvfrom(socket_.get(), query, sizeof query, 0,
                                 reinterpret_cast<sockaddr*>(&from), &from_size);
    if (n <= 0) continue;
    const std::string reply =
        Answer(std::string_view(query, static_cast<size_t>(n)), name_, answer_);
    if (reply.empty()) continue;
    ::sendto(socket_.get(), reply.data(), reply.size(), 0, reinterpret_cast<const sockaddr*>(&from),
             from_size);
  }
}

}  // namespace bothy::integration
