#include "vmservice/socket_requests.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "sockets/service_id.h"
#include "support/unix_socket.h"
#include "virtio/vsock/packet.h"
#include "vmservice/field_checks.h"
#include "vmservice/modify_type.h"
#include "vmservice/unknown_fields.h"

namespace bothy::vmservice {
namespace {

using machine::Change;
using ::vmservice::VMSocketRequest;

// What comes behind the path for a port of the guest's choice.
constexpr char kLongestSuffix[] = "_4294967295";

}  // namespace

absl::StatusOr<uint64_t> TranslateCid(const std::string& value, const std::string& path) {
  uint64_t cid = 0;
  // SimpleAtoi takes signs and blanks, too.
  if (value.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(value, &cid)) {
    return Invalid(path,
                   absl::StrCat("\"", value, "\" is no number; it is the guest's CID, ",
                                virtio::vsock::kFirstGuestCid, "..", virtio::vsock::kLastGuestCid));
  }
  RETURN_IF_ERROR(
      CheckRange(path, cid, virtio::vsock::kFirstGuestCid, virtio::vsock::kLastGuestCid));
  return cid;
}

absl::Status TranslateSockets(const ::vmservice::HVSocketConfig& config,
                              machine::SocketsConfig& out) {
  if (config.path().empty()) return absl::OkStatus();
  const std::string path = "config.hvsocket_config.path";
  RETURN_IF_ERROR(CheckPath(path, config.path()));
  RETURN_IF_ERROR(WithContext(ValidateSocketPath(config.path()), path));
  constexpr size_t kMost = kMaxSocketPath - (sizeof kLongestSuffix - 1);
  if (config.path().size() > kMost) {
    return Invalid(path, absl::StrCat("has ", config.path().size(), " bytes; at most ", kMost,
                                      " leave room for \"", kLongestSuffix,
                                      "\" behind it, as ports of the host are named"));
  }
  out.path = config.path();
  return absl::OkStatus();
}

absl::StatusOr<ResourceChange> TranslateSocketRequest(const VMSocketRequest& request) {
  RETURN_IF_ERROR(RefuseUnknownFields(request));
  ASSIGN_OR_RETURN(const Change change, TranslateModifyType(request.type()));
  machine::SocketConfig socket;
  std::string message;
  std::string port_field;
  switch (request.Config_case()) {
    case VMSocketRequest::kVsockListen:
      message = "vsock_listen";
      port_field = "vsock_listen.port";
      socket.port = request.vsock_listen().port();
      socket.path = request.vsock_listen().listener_path();
      break;
    case VMSocketRequest::kHvsocketList: {
      message = "hvsocket_list";
      port_field = "hvsocket_list.service_id";
      const auto port = sockets::PortOfServiceId(request.hvsocket_list().service_id());
      if (!port.ok()) return WithContext(port.status(), port_field);
      socket.port = *port;
      socket.path = request.hvsocket_list().listener_path();
      break;
    }
    case VMSocketRequest::CONFIG_NOT_SET:
      return absl::InvalidArgumentError(
          "Config: no port to change; set vsock_listen or hvsocket_list");
  }
  const std::string path_field = message + ".listener_path";
  if (change != Change::kRemove || !socket.path.empty()) {
    RETURN_IF_ERROR(CheckPath(path_field, socket.path));
    RETURN_IF_ERROR(WithContext(ValidateSocketPath(socket.path), path_field));
  }
  // The machine says "port: ..." or "listener_path: ...", however the port was named.
  const auto named = [message, port_field](const absl::Status& status) {
    constexpr char kPort[] = "port: ";
    const std::string text(status.message());
    if (text.starts_with(kPort)) {
      return absl::Status(status.code(),
                          absl::StrCat(port_field, ": ", text.substr(sizeof kPort - 1)));
    }
    return absl::Status(status.code(), text.starts_with("listener_path: ")
                                           ? absl::StrCat(message, ".", text)
                                           : text);
  };
  return ResourceChange{
      .resource = absl::StrCat("vsock port ", socket.port),
      .change = change,
      .apply = [socket = std::move(socket), named](machine::Machine& machine, Change now,
                                                   const std::stop_token& /*stop*/,
                                                   const machine::ChangeDone& done) {
        machine.ModifySocket(now, socket,
                             [named, done](const absl::Status& status) { done(named(status)); });
      }};
}

}  // namespace bothy::vmservice
