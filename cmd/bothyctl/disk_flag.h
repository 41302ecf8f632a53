// DiskFlag: one --disk or --pmem of the command line, "PATH[,ro][,type=...][,lun=N]".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

struct DiskFlag {
  std::string path;  // as given
  bool read_only = false;
  std::optional<::vmservice::DiskType> type;  // without: GuessDiskType
  std::optional<uint32_t> controller;         // whether the machine has it is the server's to say
  std::optional<uint32_t> lun;                // the same
};

// From "a.vhdx", "b.vhd,ro" or "/dev/sdb,type=raw,controller=1,lun=3": options stand behind the
// path in any order, once each. A comma that no option follows belongs to the path.
// InvalidArgument says what is wrong.
absl::StatusOr<DiskFlag> ParseDiskFlag(std::string_view text);
// The same for persistent memory, which has no place.
absl::StatusOr<DiskFlag> ParsePmemFlag(std::string_view text);

// Adds disks to `config`. Paths become absolute; a disk that says its whole place replaces what
// `config` has there, one that doesn't gets the first free LUN of its controller (or of the first
// controller that has one), after all those that say theirs. ResourceExhausted when none is free,
// InvalidArgument for a file that GuessDiskType refuses.
absl::Status AddScsiDisks(const std::vector<DiskFlag>& flags, ::vmservice::VMConfig* config);
// A path that `config` has already is replaced. InvalidArgument as above.
absl::Status AddPmemDisks(const std::vector<DiskFlag>& flags, ::vmservice::VMConfig* config);

}  // namespace bothy::bothyctl
