// SlirpLibrary: libslirp, a TCP/IP stack in user space, opened when the first NIC needs it.
//
// Not linked: Debian has it as a shared object only, which brings GLib along, and a server without
// a NIC of this kind should neither pay for that (docs/dependencies.md) nor need it installed.
#pragma once

#include <slirp/libslirp.h>

#include <mutex>

#include "support/status.h"

namespace bothy::net {

struct SlirpLibrary {
  // The one of this process. FailedPrecondition when the host hasn't it.
  static absl::StatusOr<const SlirpLibrary*> Load();

  // Held around every call of it: all of its stacks share a clock and a cache of name servers.
  static std::mutex& mutex();

  decltype(&::slirp_new) create = nullptr;
  decltype(&::slirp_cleanup) cleanup = nullptr;
  decltype(&::slirp_pollfds_fill) pollfds_fill = nullptr;
  decltype(&::slirp_pollfds_poll) pollfds_poll = nullptr;
  decltype(&::slirp_input) input = nullptr;
  decltype(&::slirp_add_hostfwd) add_hostfwd = nullptr;
  decltype(&::slirp_version_string) version_string = nullptr;
};

}  // namespace bothy::net
