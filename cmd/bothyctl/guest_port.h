// A connection to a port of the guest, by the server's path for that (hvsocket_config.path).
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "cmd/bothyctl/connection.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {

// The option --vsock of `verb`, for VsockPathOrTell.
void AddVsockPath(CLI::App& verb, std::string* path);
// `given`, unless it is empty: then what the server of the command line says. None when that
// fails, which has been told; `*status` is then the exit status.
std::optional<std::string> VsockPathOrTell(const std::string& given, const Globals& globals,
                                           int* status);

// Connects to `port` of the guest by `path`, and waits until the guest has accepted. Unavailable
// when it doesn't, FailedPrecondition when who serves `path` answers something else.
absl::StatusOr<UniqueFd> ConnectToGuest(const std::string& path, uint32_t port);

// Passes bytes from `input` to `socket` and from `socket` to `output` until both have ended, or
// `socket` has, or `output` takes no more; each end is passed on. `input` and `output` may be the
// same descriptor. Blocks, and needs a second thread (ResourceExhausted): when `input` is no
// socket, that one may be left behind in a read.
absl::Status PassBytes(int input, int output, int socket);

}  // namespace bothy::bothyctl
