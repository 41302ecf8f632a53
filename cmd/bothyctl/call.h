// One call of a verb: connect, call, and tell what went wrong.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cmd/bothyctl/connection.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/output.h"

namespace bothy::bothyctl {

// Connects to the server that the command line names. None when that fails, which has been told;
// `*status` is then the exit status.
std::optional<Connection> ConnectOrTell(const Globals& globals, int* status);

// Tells of a failure as "what: Status: message"; kExitError.
int Tell(const std::string& what, const absl::Status& status);

// Prints the answer: its JSON form with --json, else `text` of it; the exit status.
template <typename Response>
int PrintAnswer(const Globals& globals, const Response& response,
                const std::function<std::string(const Response&)>& text) {
  if (!globals.json) return Print(text(response)) ? kExitOk : kExitError;
  const absl::StatusOr<std::string> json = ToJson(response);
  if (!json.ok()) return Tell("--json", json.status());
  return Print(*json) ? kExitOk : kExitError;
}

// One call from end to end. `method` is its name on the wire; `text` may be null for calls whose
// answer says nothing to people.
template <typename Response, typename Request>
int CallAndPrint(const Globals& globals, const char* method,
                 absl::StatusOr<Response> (::vmservice::VMClient::*call)(const Request&,
                                                                         const ttrpc::CallOptions&),
                 const Request& request,
                 const std::function<std::string(const Response&)>& text = nullptr) {
  int status = kExitOk;
  std::optional<Connection> connection = ConnectOrTell(globals, &status);
  if (!connection) return status;
  const absl::StatusOr<Response> response =
      (connection->vm().*call)(request, globals.CallOptions());
  if (!response.ok()) return Tell(method, response.status());
  if (!globals.json && text == nullptr) return kExitOk;
  return PrintAnswer(globals, *response, text);
}

}  // namespace bothy::bothyctl
