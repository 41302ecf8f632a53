// Programs of the guest for tests of disks, by argv[0]; README.md says what they do.
#pragma once

namespace disk_programs {

inline constexpr const char* kNames[] = {"await", "known-writes", "make-tree", "check-tree"};

// The exit status; 2 for a name or arguments that aren't any's.
int Main(int argc, char** argv);

}  // namespace disk_programs
