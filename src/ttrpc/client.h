// Client: calls over one ttrpc connection, from any number of threads, any number in flight.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ttrpc::Client> connection, ttrpc::Client::Connect(path));
//   vmservice::VMClient vm(*connection);          // generated
//   ASSIGN_OR_RETURN(auto capabilities, vm.CapabilitiesVM({}));
//
// A blocking call writes its request and then reads the socket on the calling thread itself, also
// on behalf of other calls whose answers come first, so that a lone call costs two system calls and
// no change of threads. Asynchronous calls start a thread of the client's own, which reads while
// nobody else does and runs their callbacks.
//
// A lost connection stays lost: every call then answers Unavailable. Thread-safe.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "support/unique_fd.h"
#include "ttrpc/envelope.h"

namespace bothy::ttrpc {

struct CallOptions {
  // The call answers DeadlineExceeded after this long; the server is told, too. None: no deadline.
  std::optional<std::chrono::nanoseconds> timeout = {};
  Metadata metadata = {};  // keys and values are UTF-8
};

class Client {
 public:
  // Connects to a Unix socket; waits while too many others want to. NotFound: no such file;
  // Unavailable: nobody serves there; else as ConnectUnix of support/unix_socket.h.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& path);
  // Takes a connected stream socket.
  static std::unique_ptr<Client> Adopt(UniqueFd socket);
  // Close()s, and waits for the callbacks of asynchronous calls. No blocking call may be under way;
  // not from inside a callback.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // One call; blocks until its answer, its deadline or the loss of the connection. `service` is the
  // full name. Beside what the server answers: DeadlineExceeded, Unavailable (connection lost),
  // ResourceExhausted (request over 4 MiB), InvalidArgument (metadata isn't UTF-8), Internal (the
  // answer can't be decoded).
  absl::Status Call(std::string_view service, std::string_view method,
                    const google::protobuf::MessageLite& request,
                    google::protobuf::MessageLite* response, const CallOptions& options = {});

  // The same without waiting. `done` runs exactly once, on the client's own thread, never inside
  // this function; callbacks run one after another, in the order of the answers. They may make
  // calls, blocking ones included. `payload` is the serialised response, if `status` is OK.
  using Done = std::function<void(const absl::Status& status, std::string_view payload)>;
  void CallAsync(std::string_view service, std::string_view method,
                 const google::protobuf::MessageLite& request, const CallOptions& options,
                 Done done);

  // Ends the connection: calls in flight and to come answer Unavailable.
  void Close();

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// For generated code: an asynchronous call with a typed answer.
template <typename Response>
void CallAsync(Client& client, std::string_view service, std::string_view method,
               const google::protobuf::MessageLite& request, const CallOptions& options,
               std::function<void(absl::StatusOr<Response>)> done) {
  client.CallAsync(
      service, method, request, options,
      [done = std::move(done)](const absl::Status& status, std::string_view payload) {
        if (!status.ok()) return done(status);
        Response response;
        if (!response.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
          return done(
              absl::InternalError("the answer can't be decoded as " + response.GetTypeName()));
        }
        done(std::move(response));
      });
}

// For generated code: a blocking call with a typed answer.
template <typename Response>
absl::StatusOr<Response> Call(Client& client, std::string_view service, std::string_view method,
                              const google::protobuf::MessageLite& request,
                              const CallOptions& options) {
  Response response;
  absl::Status status = client.Call(service, method, request, &response, options);
  if (!status.ok()) return status;
  return response;
}

}  // namespace bothy::ttrpc
