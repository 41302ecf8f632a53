// Server: ttrpc over Unix stream sockets.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ttrpc::Server> server, ttrpc::Server::Create(loop, {}));
//   EchoServer echo;
//   RETURN_IF_ERROR(server->Register(echo));
//   ASSIGN_OR_RETURN(ttrpc::BoundSocket socket, ttrpc::ListenUnix("/run/echo.sock"));
//   RETURN_IF_ERROR(server->Listen(std::move(socket.fd)));
//   loop.Run();
//
// Any number of connections, any number of calls in flight on each, answers in any order. What one
// peer does (garbage, silence, not reading its answers) costs only its own connection.
//
// Everything here is for the loop's thread, or for any one thread while the loop isn't running yet
// or any more. Services outlive the server; the loop outlives it, too.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "support/event_loop.h"
#include "support/unique_fd.h"
#include "ttrpc/frame.h"
#include "ttrpc/service.h"

namespace bothy::ttrpc {

struct ServerOptions {
  // Limit on one message, either way; a longer one is ResourceExhausted. At most kMaxMessage.
  uint32_t max_message = kMaxMessage;
  // Decides on a peer when it connects; null: everybody may. Anything but OK is what the peer's
  // first call gets for an answer, before its connection is closed.
  std::function<absl::Status(const PeerCredentials&)> authorize = {};
  // While a client leaves more than this unread, no more of its requests are read; it goes on when
  // the client has read half.
  size_t max_write_backlog_bytes = 1 << 20;
  // Further calls of the same connection are ResourceExhausted.
  size_t max_calls_in_flight_per_connection = 4096;
  // Further connections are closed at once.
  size_t max_connections = 4096;
  // How long a refused peer may take to make the call that tells it why.
  std::chrono::milliseconds refusal_timeout = std::chrono::seconds(5);
};

class Server {
 public:
  // InvalidArgument for a max_message of 0 or over kMaxMessage.
  // The first server of a process has protobuf's own messages (each undecodable payload is one)
  // logged through support/log.h, at a limited rate.
  static absl::StatusOr<std::unique_ptr<Server>> Create(EventLoop& loop, ServerOptions options);
  // Shutdown()s. Not from inside a service's method.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // AlreadyExists when a service of that name is registered.
  absl::Status Register(Service& service);

  // Accepts connections on a listening Unix stream socket, from now on. May be called for several.
  absl::Status Listen(UniqueFd listening_socket);
  // Serves one connected Unix stream socket.
  absl::Status Adopt(UniqueFd connected_socket);

  // Closes the listening sockets; connections stay.
  void StopAccepting();

  // The graceful end: stops accepting and reading, sends what has been answered so far (answers
  // given before this call, from any thread, are included), closes every connection, and calls
  // `done` on the loop thread. A client that hasn't read its answers after `limit` is closed all
  // the same. Calls still unanswered are cancelled. May be called inside a service's method, after
  // its reply.
  void CloseWhenFlushed(std::chrono::milliseconds limit, std::function<void()> done);

  // Stops accepting, closes every connection, cancels every call. May be called inside a method.
  void Shutdown();

  // How many connections there are, refused ones included.
  [[nodiscard]] size_t connections() const;

  class Impl;

 private:
  explicit Server(std::shared_ptr<Impl> impl);
  const std::shared_ptr<Impl> impl_;
};

}  // namespace bothy::ttrpc
