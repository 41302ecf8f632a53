// Programs of the guest for tests of sockets to the host, by argv[0]; README.md says what they do.
#pragma once

namespace vsock_programs {

inline constexpr const char* kNames[] = {"vsock-cid", "vsock-connect", "vsock-echo", "vsock-many",
                                         "vsock-load"};

// The exit status; 2 for a name or arguments that aren't any's.
int Main(int argc, char** argv);

}  // namespace vsock_programs
