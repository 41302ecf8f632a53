// What a guest knows about itself, as lines "name value": for tests that compare it with what the
// VM was given.
#pragma once

#include <string>
#include <vector>

namespace facts {

// CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME in nanoseconds, with spaces between.
std::string Clocks();

// All facts; README.md lists them. Needs /proc and /sys.
std::vector<std::string> All();

// The demo's lines about kernel, CPUs and memory.
std::string Introduction();

// The programs `facts` and `clock-gap`, by argv[0].
int Main(int argc, char** argv);

}  // namespace facts
