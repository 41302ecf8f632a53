// Programs of the guest for tests of network cards, by argv[0]; README.md says what they do.
#pragma once

namespace net_programs {

inline constexpr const char* kNames[] = {"rss"};

// The exit status; 2 for a name or arguments that aren't any's.
int Main(int argc, char** argv);

}  // namespace net_programs
