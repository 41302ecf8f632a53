// MachineConfig: what a machine is made of, as plain values.
//
// vmservice/ translates the wire into it and has checked every range that needs no look at the
// host; nothing below sees a protobuf type. One struct a device kind; devices grow here as their
// folders come.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "net/mac_address.h"
#include "net/open_backend.h"
#include "support/guid.h"
#include "support/status.h"

namespace bothy::machine {

struct MemoryConfig {
  uint64_t ram_mib = 0;            // at least 1
  bool allow_overcommit = false;   // false: populate and lock before the machine exists
  bool report_free_pages = false;  // by the guest, which the host takes back then
  uint64_t low_mmio_gap_mib = 0;   // 0: the default; see memory::LayoutOptions
  uint64_t high_mmio_base_mib = 0;
  uint64_t high_mmio_gap_mib = 0;
};

struct ProcessorConfig {
  uint32_t count = 1;
};

struct DirectBootConfig {
  std::string kernel_path;
  std::string initrd_path;  // empty: none
  std::string command_line;
  bool guest_unpacks = false;  // leave a bzImage's payload to its own decompressor
};

struct SerialPortConfig {
  uint32_t port = 0;  // 0..3: COM1..COM4
  std::string socket_path;
  bool connect_only = false;
};

enum class ImageType : uint8_t {
  kVhd1,      // fixed, dynamic or differencing, as the file says
  kVhdx,      // the same
  kPhysical,  // a block device or a flat file
};

struct ImageConfig {
  std::string path;  // not empty, no NUL; without "." and empty components, so that equal is equal
  ImageType type = ImageType::kVhd1;
  bool read_only = false;
};

inline constexpr uint32_t kScsiControllers = 4;
inline constexpr uint32_t kScsiLuns = 64;  // of one controller's target 0

struct ScsiDiskConfig {
  uint32_t controller = 0;  // 0..3
  uint32_t lun = 0;         // 0..63
  ImageConfig image;
};

struct PmemDiskConfig {
  ImageConfig image;
};

// For a removal, what isn't said (no address, no backend, an empty name) fits any card.
struct NicConfig {
  Guid id;
  std::optional<net::MacAddress> mac;         // there unless it is a removal's or an update's
  std::string name;                           // for logs and inspection
  std::optional<net::BackendConfig> backend;  // without limits; there unless it is a removal's
};

// What a card is made with beside that; kept by its identity, for cards that come later.
struct NicTuning {
  enum class Vhost : uint8_t { kAuto, kOff, kOn };
  Vhost vhost = Vhost::kAuto;  // whether the host's kernel moves its frames (vhost-net)
  net::RateLimits limits;
  bool host_loopback = false;  // user-mode NAT leads to the host's loopback interface
};

// Sockets between guest and host.
struct SocketsConfig {
  uint64_t guest_cid = 3;  // 3..0xFFFFFFFE
  std::string path;        // where programs of the host connect ("CONNECT <port>"); empty: nowhere
};

// Which listener of the host a port leads to. For a removal an empty path fits any.
struct SocketConfig {
  uint32_t port = 0;
  std::string path;  // fits sockaddr_un
};

enum class PowerAction : uint8_t { kHalt, kRestart };

struct PowerActions {
  PowerAction shutdown = PowerAction::kHalt;
  PowerAction reset = PowerAction::kHalt;
  PowerAction crash = PowerAction::kHalt;
};

struct PciConfig {
  uint32_t hotplug_ports = 16;  // slots that devices can come and go in; up to kMaxRootPorts
};

struct MachineConfig {
  MemoryConfig memory;
  ProcessorConfig processors;
  DirectBootConfig direct_boot;
  std::vector<SerialPortConfig> serial_ports;  // distinct ports
  std::vector<ScsiDiskConfig> scsi_disks;      // distinct places, in the order of the request
  std::vector<PmemDiskConfig> pmem_disks;      // distinct paths, in the order of the request
  std::vector<NicConfig> nics;                 // distinct identities and addresses
  std::map<Guid, NicTuning> nic_tuning;
  SocketsConfig sockets;
  PciConfig pci;
  PowerActions power;
};

// For the removal of a disk, which goes by its place or path: InvalidArgument unless all that
// `asked` says beyond that fits the disk that is there. What the wire can't tell from left out (an
// empty path, kVhd1, writable) says nothing. The message begins with the wire's name of the field
// at fault ("host_path: ...").
absl::Status CheckNamesImage(const ImageConfig& asked, const ImageConfig& there);
// The same for a card: its address, its name and its backend.
absl::Status CheckNamesNic(const NicConfig& asked, const NicConfig& there);

// What a NicTuning comes from: extra_data["bothy.nic.<nic_id>.vhost"].
inline constexpr char kNicKeyPrefix[] = "bothy.nic.";
[[nodiscard]] std::string NicTuningField(const Guid& id, const char* what);
// Whether a card with the backend of `nic` can have all that; errors begin with NicTuningField.
//   InvalidArgument     host_loopback without NAT
//   FailedPrecondition  vhost = kOn with NAT
absl::Status CheckNicTuning(const NicConfig& nic, const NicTuning& tuning);

}  // namespace bothy::machine
