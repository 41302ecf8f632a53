#include "cmd/bothyctl/vm_flags.h"

#include <CLI/CLI.hpp>
#include <map>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/host_path.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/option_types.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::VMConfig;

const std::map<std::string, VmFlags::PowerAction>& PowerActions() {
  static const auto* const actions = new std::map<std::string, VmFlags::PowerAction>{
      {"halt", VMConfig::HALT}, {"restart", VMConfig::RESTART}};
  return *actions;
}

absl::Status ApplyBoot(const VmFlags& flags, VMConfig* config) {
  const auto needs_direct_boot = [&](bool given, const char* name) -> absl::Status {
    if (!given || flags.kernel || config->BootConfig_case() != VMConfig::kUefi) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": ", flags.config_path, " boots by uefi; with --kernel it would boot directly"));
  };
  RETURN_IF_ERROR(needs_direct_boot(flags.initrd.has_value(), "--initrd"));
  RETURN_IF_ERROR(needs_direct_boot(flags.cmdline.has_value(), "--cmdline"));
  RETURN_IF_ERROR(needs_direct_boot(flags.guest_unpacks, "--guest-unpacks"));
  if (flags.kernel) config->mutable_direct_boot()->set_kernel_path(AbsolutePath(*flags.kernel));
  if (flags.initrd) config->mutable_direct_boot()->set_initrd_path(AbsolutePath(*flags.initrd));
  if (flags.cmdline) config->mutable_direct_boot()->set_kernel_cmdline(*flags.cmdline);
  if (flags.guest_unpacks) (*config->mutable_extra_data())["bothy.kernel.unpack"] = "guest";
  return absl::OkStatus();
}

void ApplySize(const VmFlags& flags, VMConfig* config) {
  if (flags.config_path.empty()) {
    config->mutable_memory_config()->set_memory_mb(kDefaultMemoryMb);
    config->mutable_memory_config()->set_allow_overcommit(true);
  }
  if (flags.memory_mb) config->mutable_memory_config()->set_memory_mb(*flags.memory_mb);
  if (flags.populate) config->mutable_memory_config()->set_allow_overcommit(false);
  if (flags.overcommit) config->mutable_memory_config()->set_allow_overcommit(true);
  if (flags.cpus) config->mutable_processor_config()->set_processor_count(*flags.cpus);
}

void ApplyPowerActions(const VmFlags& flags, VMConfig* config) {
  if (flags.on_shutdown) config->mutable_guest_power_actions()->set_shutdown(*flags.on_shutdown);
  if (flags.on_reset) config->mutable_guest_power_actions()->set_reset(*flags.on_reset);
  if (flags.on_crash) config->mutable_guest_power_actions()->set_crash(*flags.on_crash);
}

}  // namespace

void AddVmFlags(CLI::App& verb, VmFlags* flags) {
  verb.add_option(
          "--config", flags->config_path,
          "The VM as a file: the JSON form of VMConfig, - for standard input. Flags replace "
          "what it says")
      ->type_name("FILE");
  verb.add_option("--kernel", flags->kernel, "Kernel to boot directly: a bzImage or an ELF vmlinux")
      ->type_name("FILE");
  verb.add_option("--initrd", flags->initrd, "Initial RAM disk")->type_name("FILE");
  verb.add_option("--cmdline", flags->cmdline, "Kernel command line")->type_name("TEXT");
  verb.add_option("--cpus", flags->cpus, "Virtual CPUs; without --config: 1")->type_name("N");
  AddMebibytes(verb, "--memory", &flags->memory_mb,
               "Guest RAM: 512 (MiB), 512M, 2G; without --config: 512M");
  AddParsed<SerialFlag>(
      verb, "--serial",
      "Serial port 0..3 (COM1..COM4): PATH is a Unix socket, which the server listens on unless "
      "somebody does already; with \",connect\" it only ever connects. For run, \"-\" is this "
      "terminal; without: COM1",
      ParseSerialFlag, [flags](SerialFlag flag) { flags->serial.push_back(std::move(flag)); })
      ->type_name("PORT=PATH[,connect]");
  AddParsed<DiskFlag>(
      verb, "--disk",
      "A SCSI disk: an image (VHD, VHDX or raw, by its contents unless type= says it) or a block "
      "device; with \",ro\" the guest can't write to it. Without lun= it gets the first free one",
      ParseDiskFlag, [flags](DiskFlag flag) { flags->disks.push_back(std::move(flag)); })
      ->type_name("PATH[,ro][,type=vhd|vhdx|raw][,lun=N][,controller=N]");
  AddParsed<DiskFlag>(
      verb, "--pmem", "Persistent memory: an image, which the guest sees as byte-addressable",
      ParsePmemFlag, [flags](DiskFlag flag) { flags->pmem.push_back(std::move(flag)); })
      ->type_name("PATH[,ro][,type=vhd|vhdx|raw]");
  AddParsed<NicFlag>(
      verb, "--nic",
      "A network card: user (NAT, without privileges; forward=[udp:]HOST_PORT:GUEST_PORT makes a "
      "port of the host lead to the guest, network=10.0.2.0/24 is the guest's), a tap of the host, "
      "or a bridge's name or alias, on which a port is made (port=ALIAS). With id=GUID, "
      "mac=ADDRESS, name=TEXT",
      ParseNicFlag, [flags](NicFlag flag) { flags->nics.push_back(std::move(flag)); })
      ->type_name("user[,forward=…]|tap=NAME|switch=NAME[,mac=…]");
  verb.add_option("--vsock", flags->vsock_path,
                  "Unix socket by which programs here reach ports of the guest (CONNECT PORT); its "
                  "connections to port N go to PATH_N unless socket add says otherwise")
      ->type_name("PATH");
  verb.add_flag("--guest-unpacks", flags->guest_unpacks,
                "The guest unpacks its kernel itself, which keeps its address randomisation");
  CLI::Option* const populate = verb.add_flag(
      "--populate", flags->populate, "Populate and lock all of guest RAM before the VM exists");
  verb.add_flag("--overcommit", flags->overcommit,
                "Guest RAM appears as the guest touches it; the default without --config")
      ->excludes(populate);
  AddChoice(verb, "--on-shutdown", &flags->on_shutdown, PowerActions(),
            "What the guest's power-off does");
  AddChoice(verb, "--on-reset", &flags->on_reset, PowerActions(), "What the guest's reset does");
  AddChoice(verb, "--on-crash", &flags->on_crash, PowerActions(), "What a guest's crash does");
  verb.add_option("--log-id", flags->log_id, "An id that the server's log records carry")
      ->type_name("ID");
  using Pair = std::pair<std::string, std::string>;
  AddParsed<Pair>(
      verb, "--extra", "An entry of extra_data, as docs/extra-data.md lists them",
      [](std::string_view text) -> absl::StatusOr<Pair> {
        const size_t equals = text.find('=');
        if (equals == std::string_view::npos || equals == 0) {
          return absl::InvalidArgumentError(
              absl::StrCat("\"", std::string(text), "\": write KEY=VALUE"));
        }
        return Pair(text.substr(0, equals), text.substr(equals + 1));
      },
      [flags](Pair pair) { flags->extra_data.push_back(std::move(pair)); })
      ->type_name("KEY=VALUE");
}

absl::StatusOr<::vmservice::CreateVMRequest> BuildCreateRequest(const VmFlags& flags) {
  ::vmservice::CreateVMRequest request;
  VMConfig* const config = request.mutable_config();
  if (!flags.config_path.empty()) RETURN_IF_ERROR(ReadJsonFile(flags.config_path, config));
  RETURN_IF_ERROR(ApplyBoot(flags, config));
  ApplySize(flags, config);
  ApplyPowerActions(flags, config);
  for (const SerialFlag& serial : flags.serial) {
    if (serial.terminal) continue;
    SetSerialPort(serial.port, AbsolutePath(serial.socket_path), serial.connect, config);
  }
  RETURN_IF_ERROR(AddScsiDisks(flags.disks, config));
  RETURN_IF_ERROR(AddPmemDisks(flags.pmem, config));
  RETURN_IF_ERROR(AddNics(flags.nics, config));
  if (!flags.vsock_path.empty()) {
    config->mutable_hvsocket_config()->set_path(AbsolutePath(flags.vsock_path));
  }
  for (const auto& [key, value] : flags.extra_data) (*config->mutable_extra_data())[key] = value;
  request.set_log_id(flags.log_id);
  return request;
}

absl::StatusOr<std::optional<uint32_t>> TerminalPort(const VmFlags& flags, const VMConfig& config) {
  std::optional<uint32_t> port;
  for (const SerialFlag& serial : flags.serial) {
    if (!serial.terminal) continue;
    if (port) return absl::InvalidArgumentError("--serial: only one port can be on the terminal");
    port = serial.port;
  }
  if (port) return port;
  for (const auto& serial : config.serial_config().ports()) {
    if (serial.port() == 0) return std::optional<uint32_t>();
  }
  return std::optional<uint32_t>(0);
}

void SetSerialPort(uint32_t port, const std::string& socket_path, bool connect, VMConfig* config) {
  auto* const ports = config->mutable_serial_config()->mutable_ports();
  for (int i = ports->size() - 1; i >= 0; --i) {
    if (ports->Get(i).port() == port) ports->DeleteSubrange(i, 1);
  }
  auto* const serial = ports->Add();
  serial->set_port(port);
  serial->set_socket_path(socket_path);
  serial->set_connect(connect);
}

}  // namespace bothy::bothyctl
