// Endpoint: GET /metrics over HTTP/1.1, for Prometheus and whoever reads its text format.
//
//   ASSIGN_OR_RETURN(auto address, metrics::ListenAddress::Parse("127.0.0.1:9100"));
//   ASSIGN_OR_RETURN(auto socket, metrics::Listen(address));
//   ASSIGN_OR_RETURN(auto endpoint, metrics::Endpoint::Create(std::move(socket), ask, {}));
//
// It has a thread of its own, "metrics", on which requests are read and answers made: what a client
// does (nothing, garbage, not reading, asking in a loop) costs the VM no more than one look at its
// state tree every Limits::between_looks. Scrapes that come meanwhile share the next look.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "inspect/value.h"
#include "metrics/listen_address.h"
#include "support/status.h"

namespace bothy::metrics {

struct Limits {
  // One more takes the place of the one that has been silent the longest.
  size_t connections = 32;
  // For a request to come in whole, and again for its answer to be taken.
  std::chrono::milliseconds exchange = std::chrono::seconds(10);
  // For the next request of a connection to begin.
  std::chrono::milliseconds idle = std::chrono::minutes(2);
  std::chrono::milliseconds between_looks = std::chrono::milliseconds(100);
};

class Endpoint {
 public:
  using Look = std::function<void(absl::StatusOr<inspect::Value>)>;
  // Has the whole state tree described, and calls its argument once, on any thread, perhaps after
  // the endpoint has gone. Called on the endpoint's thread.
  using Ask = std::function<void(Look)>;

  // ResourceExhausted when there is no thread or descriptor to be had.
  static absl::StatusOr<std::unique_ptr<Endpoint>> Create(ListeningSocket socket, Ask ask,
                                                          Limits limits);
  // Removes the socket's file and closes every connection.
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

 private:
  class Impl;
  explicit Endpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bothy::metrics
