// Connection: the server that the command line names, and calls to it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "support/status.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::bothyctl {

// The options that every verb has.
struct Globals {
  std::string address;  // path of the server's socket; empty: not given
  std::optional<std::chrono::nanoseconds> timeout;
  bool json = false;

  [[nodiscard]] ttrpc::CallOptions CallOptions() const {
    ttrpc::CallOptions options;
    options.timeout = timeout;
    return options;
  }
};

class Connection {
 public:
  // Errors as ttrpc::Client has them.
  static absl::StatusOr<Connection> Open(const std::string& path);

  [[nodiscard]] ::vmservice::VMClient& vm() { return *vm_; }

 private:
  explicit Connection(std::unique_ptr<ttrpc::Client> client)
      : client_(std::move(client)), vm_(std::make_unique<::vmservice::VMClient>(*client_)) {}

  std::unique_ptr<ttrpc::Client> client_;
  std::unique_ptr<::vmservice::VMClient> vm_;
};

}  // namespace bothy::bothyctl
