// VmFlags: a VM described on the command line, on top of a configuration file or alone.
//
//   VmFlags flags;
//   AddVmFlags(*verb, &flags);
//   … parse …
//   ASSIGN_OR_RETURN(::vmservice::CreateVMRequest request, BuildCreateRequest(flags));
//
// A flag that was given replaces that field of the file; everything else stays as the file has it.
// What the fields may hold is the server's to check: its errors name them by their path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cmd/bothyctl/disk_flag.h"
#include "cmd/bothyctl/nic_flag.h"
#include "cmd/bothyctl/serial_flag.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace CLI {
class App;
}

namespace bothy::bothyctl {

struct VmFlags {
  std::string config_path;  // the JSON form of VMConfig; "-": standard input; empty: none
  std::optional<std::string> kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> cmdline;
  std::optional<uint32_t> cpus;
  std::optional<uint64_t> memory_mb;
  std::vector<SerialFlag> serial;
  std::vector<DiskFlag> disks;
  std::vector<DiskFlag> pmem;
  std::vector<NicFlag> nics;
  std::string vsock_path;  // empty: as the file has it
  bool guest_unpacks = false;
  bool populate = false;
  bool overcommit = false;
  using PowerAction = ::vmservice::VMConfig::GuestPowerAction;
  std::optional<PowerAction> on_shutdown;
  std::optional<PowerAction> on_reset;
  std::optional<PowerAction> on_crash;
  std::string log_id;
  std::vector<std::pair<std::string, std::string>> extra_data;
};

// Without a file and without the flag.
inline constexpr uint64_t kDefaultMemoryMb = 512;

// Defines the options of `verb`. `flags` outlives the parsing.
void AddVmFlags(CLI::App& verb, VmFlags* flags);

// The request that the flags, and the file they name, ask for. Paths on the command line become
// absolute, since a server may run in another folder; those in the file stay. Serial ports that
// are to be on the terminal aren't in it. Errors are ReadJsonFile's, AddScsiDisks', and
// InvalidArgument for --initrd, --cmdline or --guest-unpacks on top of a file that boots another
// way.
absl::StatusOr<::vmservice::CreateVMRequest> BuildCreateRequest(const VmFlags& flags);

// The serial port that is to be on the terminal: what "PORT=-" says, else COM1 if neither flags
// nor file gave it a socket; none, if they did. InvalidArgument when several want the terminal.
absl::StatusOr<std::optional<uint32_t>> TerminalPort(const VmFlags& flags,
                                                     const ::vmservice::VMConfig& config);

// Gives a port its socket, in place of what the configuration says about that port.
void SetSerialPort(uint32_t port, const std::string& socket_path, bool connect,
                   ::vmservice::VMConfig* config);

}  // namespace bothy::bothyctl
