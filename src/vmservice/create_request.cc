#include "vmservice/create_request.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "support/unix_socket.h"
#include "vmservice/device_requests.h"
#include "vmservice/field_checks.h"
#include "vmservice/nic_requests.h"
#include "vmservice/socket_requests.h"
#include "vmservice/unknown_fields.h"

namespace bothy::vmservice {
namespace {

using machine::MachineConfig;
using machine::PowerAction;

constexpr size_t kMaxLogIdBytes = 256;

absl::Status TranslateMemory(const ::vmservice::VMConfig& config, machine::MemoryConfig& out) {
  const std::string path = "config.memory_config";
  const ::vmservice::MemoryConfig& memory = config.memory_config();
  if (memory.memory_mb() == 0) return Invalid(path + ".memory_mb", "must be at least 1");
  // 2^32 MiB are the 52 bits of the widest x86 address; what follows may multiply without overflow.
  constexpr uint64_t kBeyondAnyCpu = uint64_t{1} << 32;
  if (memory.memory_mb() > kBeyondAnyCpu) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ".memory_mb: ", memory.memory_mb(), " MiB is more than any host has"));
  }
  if (memory.deferred_commit() && !memory.allow_overcommit()) {
    return Invalid(path + ".deferred_commit",
                   "contradicts allow_overcommit=false, which commits all memory at once");
  }
  if (memory.low_mmio_gap_in_mb() != 0) {
    RETURN_IF_ERROR(
        CheckRange(path + ".low_mmio_gap_in_mb", memory.low_mmio_gap_in_mb(), 512, 3072));
  }
  if (memory.high_mmio_base_in_mb() != 0) {
    RETURN_IF_ERROR(CheckRange(path + ".high_mmio_base_in_mb", memory.high_mmio_base_in_mb(), 4096,
                               kBeyondAnyCpu));
  }
  RETURN_IF_ERROR(
      CheckRange(path + ".high_mmio_gap_in_mb", memory.high_mmio_gap_in_mb(), 0, kBeyondAnyCpu));
  if (memory.deferred_commit()) return NotInThisBuild(path + ".deferred_commit", "deferred commit");
  if (memory.hot_hint()) return NotInThisBuild(path + ".hot_hint", "memory hints");
  if (memory.cold_hint()) return NotInThisBuild(path + ".cold_hint", "memory hints");
  if (memory.cold_discard_hint() && !memory.allow_overcommit()) {
    return Invalid(path + ".cold_discard_hint",
                   "contradicts allow_overcommit=false, which keeps all memory locked");
  }
  out.ram_mib = memory.memory_mb();
  out.allow_overcommit = memory.allow_overcommit();
  out.report_free_pages = memory.cold_discard_hint();
  out.low_mmio_gap_mib = memory.low_mmio_gap_in_mb();
  out.high_mmio_base_mib = memory.high_mmio_base_in_mb();
  out.high_mmio_gap_mib = memory.high_mmio_gap_in_mb();
  return absl::OkStatus();
}

absl::Status TranslateProcessors(const ::vmservice::VMConfig& config,
                                 machine::ProcessorConfig& out) {
  const std::string path = "config.processor_config";
  const ::vmservice::ProcessorConfig& processors = config.processor_config();
  RETURN_IF_ERROR(CheckRange(path + ".processor_weight", processors.processor_weight(), 0, 10000));
  RETURN_IF_ERROR(CheckRange(path + ".processor_limit", processors.processor_limit(), 0, 100000));
  // The defaults, spelled out, ask for nothing.
  constexpr uint32_t kDefaultWeight = 100;
  constexpr uint32_t kDefaultLimit = 100000;
  if (processors.processor_weight() != 0 && processors.processor_weight() != kDefaultWeight) {
    return NotInThisBuild(path + ".processor_weight", "CPU weights");
  }
  if (processors.processor_limit() != 0 && processors.processor_limit() != kDefaultLimit) {
    return NotInThisBuild(path + ".processor_limit", "CPU limits");
  }
  out.count = processors.processor_count() == 0 ? 1 : processors.processor_count();
  return absl::OkStatus();
}

absl::Status TranslateSerial(const ::vmservice::VMConfig& config, MachineConfig& out) {
  std::map<uint32_t, int> by_port;
  std::map<std::string, int> by_path;
  const auto& ports = config.serial_config().ports();
  for (int i = 0; i < ports.size(); ++i) {
    const std::string path = absl::StrCat("config.serial_config.ports[", i, "]");
    const auto& port = ports[i];
    RETURN_IF_ERROR(CheckRange(path + ".port", port.port(), 0, 3));
    RETURN_IF_ERROR(CheckPath(path + ".socket_path", port.socket_path()));
    RETURN_IF_ERROR(WithContext(ValidateSocketPath(port.socket_path()), path + ".socket_path"));
    if (const auto [first, added] = by_port.emplace(port.port(), i); !added) {
      return Invalid(path + ".port", absl::StrCat("COM", port.port() + 1, " is ports[",
                                                  first->second, "] already"));
    }
    if (const auto [first, added] = by_path.emplace(PlainPath(port.socket_path()), i); !added) {
      return Invalid(path + ".socket_path",
                     absl::StrCat("is the socket of ports[", first->second, "] already"));
    }
    out.serial_ports.push_back(
        {.port = port.port(), .socket_path = port.socket_path(), .connect_only = port.connect()});
  }
  return absl::OkStatus();
}

absl::Status TranslateBoot(const ::vmservice::VMConfig& config, MachineConfig& out) {
  switch (config.BootConfig_case()) {
    case ::vmservice::VMConfig::kDirectBoot:
      break;
    case ::vmservice::VMConfig::kUefi:
      return NotInThisBuild("config.uefi", "UEFI boot; use config.direct_boot");
    case ::vmservice::VMConfig::BOOTCONFIG_NOT_SET:
      return Invalid("config.direct_boot", "nothing to boot; set direct_boot.kernel_path");
  }
  const std::string path = "config.direct_boot";
  const ::vmservice::DirectBoot& boot = config.direct_boot();
  RETURN_IF_ERROR(CheckPath(path + ".kernel_path", boot.kernel_path()));
  if (!boot.initrd_path().empty()) {
    RETURN_IF_ERROR(CheckPath(path + ".initrd_path", boot.initrd_path()));
  }
  if (boot.kernel_cmdline().find('\0') != std::string::npos) {
    return Invalid(path + ".kernel_cmdline", "contains a NUL byte");
  }
  out.direct_boot.kernel_path = boot.kernel_path();
  out.direct_boot.initrd_path = boot.initrd_path();
  out.direct_boot.command_line = boot.kernel_cmdline();
  return absl::OkStatus();
}

absl::Status TranslateExtraData(const ::vmservice::VMConfig& config, MachineConfig& out) {
  // An ordered copy: which of several errors is reported doesn't depend on the map's hash.
  const std::map<std::string, std::string> entries(config.extra_data().begin(),
                                                   config.extra_data().end());
  for (const auto& [key, value] : entries) {
    const std::string path = absl::StrCat("config.extra_data[\"", key, "\"]");
    if (key == "bothy.kernel.unpack") {
      if (value != "host" && value != "guest") {
        return Invalid(path, absl::StrCat("\"", value, "\" is neither \"host\" nor \"guest\""));
      }
      out.direct_boot.guest_unpacks = value == "guest";
    } else if (key == "bothy.max_processors") {
      return NotInThisBuild(path, "processor hot-plug");
    } else if (key == "bothy.max_memory_mb") {
      return NotInThisBuild(path, "memory hot-plug");
    } else if (key.starts_with(machine::kNicKeyPrefix)) {
      RETURN_IF_ERROR(TranslateNicTuning(key, value, path, out));
    } else if (key == kCidKey) {
      ASSIGN_OR_RETURN(out.sockets.guest_cid, TranslateCid(value, path));
    } else if (key.starts_with("bothy.")) {
      return Invalid(path, "unknown key; docs/extra-data.md lists those there are");
    }
  }
  return absl::OkStatus();
}

absl::Status TranslatePowerAction(const std::string& path,
                                  ::vmservice::VMConfig::GuestPowerAction action,
                                  PowerAction& out) {
  switch (action) {
    case ::vmservice::VMConfig::DEFAULT:  // under direct boot everything halts
    case ::vmservice::VMConfig::HALT:
      out = PowerAction::kHalt;
      return absl::OkStatus();
    case ::vmservice::VMConfig::RESTART:
      out = PowerAction::kRestart;
      return absl::OkStatus();
    default:
      return Invalid(path, absl::StrCat(static_cast<int>(action), " is no GuestPowerAction"));
  }
}

absl::Status TranslatePowerActions(const ::vmservice::VMConfig& config,
                                   machine::PowerActions& out) {
  const std::string path = "config.guest_power_actions";
  const auto& actions = config.guest_power_actions();
  RETURN_IF_ERROR(TranslatePowerAction(path + ".shutdown", actions.shutdown(), out.shutdown));
  RETURN_IF_ERROR(TranslatePowerAction(path + ".reset", actions.reset(), out.reset));
  RETURN_IF_ERROR(TranslatePowerAction(path + ".crash", actions.crash(), out.crash));
  PowerAction watchdog{};
  RETURN_IF_ERROR(TranslatePowerAction(path + ".watchdog", actions.watchdog(), watchdog));
  if (actions.watchdog() != ::vmservice::VMConfig::DEFAULT) {
    return NotInThisBuild(path + ".watchdog", "a watchdog device");
  }
  return absl::OkStatus();
}

}  // namespace

std::string ForeignExtraData(const ::vmservice::VMConfig& config) {
  constexpr size_t kMostNamed = 8;
  std::set<std::string> keys;
  for (const auto& [key, value] : config.extra_data()) {
    if (!key.starts_with("bothy.")) keys.insert(key);
  }
  if (keys.empty()) return "";
  std::string text = absl::StrCat("config.extra_data: left alone what isn't this server's: ");
  size_t named = 0;
  for (const std::string& key : keys) {
    if (named == kMostNamed) {
      absl::StrAppend(&text, " and ", keys.size() - named, " more");
      break;
    }
    absl::StrAppend(&text, named++ == 0 ? "\"" : ", \"", key.substr(0, 64), "\"");
  }
  return text;
}

absl::StatusOr<MachineConfig> TranslateCreateRequest(const ::vmservice::CreateVMRequest& request) {
  RETURN_IF_ERROR(RefuseUnknownFields(request));
  if (!request.has_config()) return Invalid("config", "is missing");
  if (request.log_id().size() > kMaxLogIdBytes) {
    return Invalid("log_id", absl::StrCat(request.log_id().size(), " bytes are more than ",
                                          kMaxLogIdBytes, "; every log record carries it"));
  }
  const ::vmservice::VMConfig& config = request.config();
  MachineConfig out;
  RETURN_IF_ERROR(TranslateMemory(config, out.memory));
  RETURN_IF_ERROR(TranslateProcessors(config, out.processors));
  RETURN_IF_ERROR(TranslateSerial(config, out));
  RETURN_IF_ERROR(TranslateBoot(config, out));
  RETURN_IF_ERROR(TranslateExtraData(config, out));
  RETURN_IF_ERROR(TranslatePowerActions(config, out.power));
  RETURN_IF_ERROR(TranslateDevices(config.devices_config(), out));
  if (config.windows_options().cpu_group_id() != 0) {
    return NotInThisBuild("config.windows_options.cpu_group_id", "CPU groups");
  }
  RETURN_IF_ERROR(TranslateSockets(config.hvsocket_config(), out.sockets));
  return out;
}

}  // namespace bothy::vmservice
