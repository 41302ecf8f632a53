// NetworkNamespace: an empty network of a test's own, in which it may do everything: without root
// where the kernel lets anybody have a user namespace.
#pragma once

#include <functional>
#include <string>

#include "support/status.h"

namespace bothy::net {

// Runs `test` on a thread that is alone in a new network namespace, with CAP_NET_ADMIN there; the
// namespace is gone afterwards. Puts the process into a user namespace unless it is root's already,
// which takes that it has no other threads.
//
// FailedPrecondition, and nothing was run: neither is to be had on this host; skip the test.
absl::Status InNetworkNamespace(const std::function<void()>& test);

// The calling thread may do no more than any user's.
void DropCapabilities();

}  // namespace bothy::net
