// MachineConfig: what a machine is made of, as plain values.
//
// vmservice/ translates the wire into it and has checked every range that needs no look at the
// host; nothing below sees a protobuf type. One struct a device kind; devices grow here as their
// folders come.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bothy::machine {

struct MemoryConfig {
  uint64_t ram_mib = 0;           // at least 1
  bool allow_overcommit = false;  // false: populate and lock before the machine exists
  uint64_t low_mmio_gap_mib = 0;  // 0: the default; see memory::LayoutOptions
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

enum class PowerAction : uint8_t { kHalt, kRestart };

struct PowerActions {
  PowerAction shutdown = PowerAction::kHalt;
  PowerAction reset = PowerAction::kHalt;
  PowerAction crash = PowerAction::kHalt;
};

struct MachineConfig {
  MemoryConfig memory;
  ProcessorConfig processors;
  DirectBootConfig direct_boot;
  std::vector<SerialPortConfig> serial_ports;  // distinct ports
  PowerActions power;
};

}  // namespace bothy::machine
