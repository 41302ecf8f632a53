#include <charconv>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/host_path.h"
#include "cmd/bothyctl/image_type.h"
#include "cmd/bothyctl/modify_type.h"
#include "cmd/bothyctl/nic_flag.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::DiskType;
using ::vmservice::ModifyResourceRequest;

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock modify memory add 512M
      gives the VM 512 MiB more
  bothyctl -a vm.sock modify scsi-disk add 0:3 /images/data.vhdx
      plugs a disk into controller 0 as LUN 3
  bothyctl -a vm.sock modify --request change.json
      any change, as the JSON form of ModifyResourceRequest)";

// The disk options that SCSI and persistent memory share.
struct DiskFlags {
  std::string path;
  std::optional<DiskType> type;
  bool read_only = false;

  // Puts them into a SCSIDisk or a VPMEMDisk. A removal needs no type, and guesses none: the disk
  // that is there may have been added as another. InvalidArgument as GuessDiskType.
  template <typename Disk>
  absl::Status Apply(std::optional<::vmservice::ModifyType> change, Disk* disk) const {
    disk->set_host_path(AbsolutePath(path));
    disk->set_read_only(read_only);
    if (type) {
      disk->set_type(*type);
    } else if (change != ::vmservice::REMOVE && !path.empty()) {
      ASSIGN_OR_RETURN(const DiskType guessed, GuessDiskType(disk->host_path(), "--type raw"));
      disk->set_type(guessed);
    }
    return absl::OkStatus();
  }
};

// What the words after `modify` have come to.
struct Change {
  std::string request_file;
  std::optional<::vmservice::ModifyType> type;
  ModifyResourceRequest request;
  std::optional<uint64_t> memory_mb;
  DiskFlags disk;
};
using SharedChange = std::shared_ptr<Change>;

class Resources {
 public:
  Resources(CommandLine& commands, CLI::App* modify, SharedChange change)
      : commands_(commands), modify_(modify), change_(std::move(change)) {}

  void AddMemory() {
    CLI::App* const verb = Add("memory", "Guest RAM",
                               "  bothyctl -a vm.sock modify memory add 512M\n"
                               "      512 MiB more\n"
                               "  bothyctl -a vm.sock modify memory update 2G\n"
                               "      2 GiB in all");
    AddMebibytes(*verb, "size", &change_->memory_mb, "How much: 512 (MiB), 512M, 2G")->required();
    Finish(verb, [](Change& change) {
      change.request.mutable_memory()->set_memory_mb(*change.memory_mb);
      return absl::OkStatus();
    });
  }

  void AddProcessor() {
    CLI::App* const verb = Add("processor", "One processor",
                               "  bothyctl -a vm.sock modify processor add 2\n"
                               "      brings processor 2 online");
    verb->add_option_function<uint32_t>(
            "index",
            [change = change_](uint32_t index) {
              change->request.mutable_processor()->set_processor_index(index);
            },
            "Which, counted from 0")
        ->type_name("INDEX")
        ->required();
    Finish(verb, nullptr);
  }

  void AddProcessorConfig() {
    CLI::App* const verb = commands_.AddVerb(
        modify_, "processor-config", "The VM's share of the host's processors",
        "  bothyctl -a vm.sock modify processor-config --weight 200 --limit 50000\n"
        "      twice the usual weight, at most half of each processor");
    const auto number = [&](const char* name, const char* description, auto set) {
      verb->add_option_function<uint32_t>(
              name,
              [change = change_, set](uint32_t value) {
                (change->request.mutable_processor_config()->*set)(value);
              },
              description)
          ->type_name("N");
    };
    using Config = ::vmservice::ModifyProcessorConfigRequest;
    number("--weight", "1..10000; without: 100", &Config::set_processor_weight);
    number("--limit", "1..100000, in 1/1000 % of each virtual processor; without: no limit",
           &Config::set_processor_limit);
    Finish(verb, [](Change& change) {
      change.type = ::vmservice::UPDATE;
      change.request.mutable_processor_config();
      return absl::OkStatus();
    });
  }

  void AddScsiDisk() {
    CLI::App* const verb =
        Add("scsi-disk", "A SCSI disk",
            "  bothyctl -a vm.sock modify scsi-disk add 0:3 /images/data.vhdx\n"
            "      plugs a disk into controller 0 as LUN 3\n"
            "  bothyctl -a vm.sock modify scsi-disk update 0:3 /images/new.vhdx\n"
            "      changes its medium; with the same path: looks at its size\n"
            "  bothyctl -a vm.sock modify scsi-disk remove 0:3\n"
            "      unplugs it");
    AddParsed<std::pair<uint32_t, uint32_t>>(
        *verb, "place", "Where: controller and LUN", ParsePlace,
        [change = change_](std::pair<uint32_t, uint32_t> place) {
          change->request.mutable_scsi_disk()->set_controller(place.first);
          change->request.mutable_scsi_disk()->set_lun(place.second);
        })
        ->type_name("CONTROLLER:LUN")
        ->required();
    AddDiskFlags(verb, /*path_required=*/false);
    Finish(verb, [](Change& change) {
      return change.disk.Apply(change.type, change.request.mutable_scsi_disk());
    });
  }

  void AddVpmemDisk() {
    CLI::App* const verb = Add("vpmem-disk", "A persistent memory disk",
                               "  bothyctl -a vm.sock modify vpmem-disk add /images/root.img\n"
                               "      appears in the guest as byte-addressable memory\n"
                               "  bothyctl -a vm.sock --timeout 10s modify vpmem-disk remove "
                               "/images/root.img\n"
                               "      asks the guest to eject it, and waits for that");
    AddDiskFlags(verb, /*path_required=*/true);
    Finish(verb, [](Change& change) {
      return change.disk.Apply(change.type, change.request.mutable_vpmem_disk());
    });
  }

  void AddNic() {
    CLI::App* const verb =
        Add("nic", "A network card",
            "  bothyctl -a vm.sock modify nic add 3f2504e0-4f89-11d3-9a0c-0305e82c3301 --tap tap0\n"
            "      a card on the host's tap0");
    const auto text = [&](const char* name, const char* type, const char* description, auto set) {
      return verb
          ->add_option_function<std::string>(
              name,
              [change = change_, set](const std::string& value) {
                set(*change->request.mutable_nic_config(), value);
              },
              description)
          ->type_name(type);
    };
    using Nic = ::vmservice::NICConfig;
    text("id", "GUID", "The card's identity", [](Nic& nic, const std::string& id) {
      nic.set_nic_id(id);
    })->required();
    text("--mac", "ADDRESS", "12-34-56-78-9A-BC, or with colons; without: made from the identity",
         [](Nic& nic, const std::string& mac) { nic.set_mac_address(PlainMac(mac)); });
    text("--name", "TEXT", "A name for logs and inspection",
         [](Nic& nic, const std::string& name) { nic.set_nic_name(name); });
    text("--switch", "ID", "The host bridge of that name or alias",
         [](Nic& nic, const std::string& id) { nic.set_switch_id(id); });
    text("--port", "ID", "The port made on that bridge",
         [](Nic& nic, const std::string& id) { nic.set_port_id(id); });
    CLI::Option* const tap =
        text("--tap", "NAME", "A tap device of the host",
             [](Nic& nic, const std::string& name) { nic.mutable_tap()->set_name(name); });
    text("--user", "NETWORK", "NAT in user space, for a network such as 10.0.2.0/24",
         [](Nic& nic, const std::string& network) { nic.mutable_user()->set_cidr(network); })
        ->excludes(tap);
    AddParsed<::vmservice::UserBackend>(
        *verb, "--forward", "With NAT: a port of the host that leads to the guest",
        [](std::string_view forward) -> absl::StatusOr<::vmservice::UserBackend> {
          ::vmservice::UserBackend user;
          RETURN_IF_ERROR(AddForward(forward, &user));
          return user;
        },
        [change = change_](const ::vmservice::UserBackend& user) {
          change->request.mutable_nic_config()->mutable_user()->MergeFrom(user);
        })
        ->type_name("[udp:]HOST:GUEST")
        ->excludes(tap);
    Finish(verb, nullptr);
  }

  void AddDevice() {
    CLI::App* const verb = Add("device", "An assigned device of the host",
                               "  bothyctl -a vm.sock modify device add 0000:03:00.0\n"
                               "      gives that PCI device to the guest");
    verb->add_option_function<std::string>(
            "id",
            [change = change_](const std::string& id) {
              change->request.mutable_windows_device()->set_instance_id(id);
            },
            "A PCI address, or a Windows instance id")
        ->type_name("ID")
        ->required();
    Finish(verb, nullptr);
  }

 private:
  static absl::StatusOr<std::pair<uint32_t, uint32_t>> ParsePlace(std::string_view text) {
    std::pair<uint32_t, uint32_t> place;
    const char* const end = text.data() + text.size();
    const auto controller = std::from_chars(text.data(), end, place.first);
    if (controller.ec == std::errc() && controller.ptr != end && *controller.ptr == ':') {
      const auto lun = std::from_chars(controller.ptr + 1, end, place.second);
      if (lun.ec == std::errc() && lun.ptr == end) return place;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text), "\": write CONTROLLER:LUN, such as 0:3"));
  }

  CLI::App* Add(const char* name, const char* description, const char* examples) {
    CLI::App* const verb = commands_.AddVerb(modify_, name, description, examples);
    AddChoice(*verb, "change", &change_->type, ModifyTypes(), "What to do with it")->required();
    return verb;
  }

  void AddDiskFlags(CLI::App* verb, bool path_required) {
    DiskFlags& disk = change_->disk;
    verb->add_option("path", disk.path, "The image, or a block device")
        ->type_name("FILE")
        ->required(path_required);
    AddChoice(*verb, "--type", &disk.type, DiskTypes(),
              "The image's format; without: by its contents");
    verb->add_flag("--read-only", disk.read_only, "The guest can't write to it");
  }

  // `complete` puts what the options have left aside into the request; may be null.
  void Finish(CLI::App* verb, std::function<absl::Status(Change&)> complete) {
    commands_.OnVerb(
        verb, [change = change_, complete = std::move(complete)](const Globals& globals) -> int {
          if (!change->request_file.empty()) {
            PrintError("modify: give either a resource or --request FILE");
            return kExitUsage;
          }
          if (complete) {
            if (const absl::Status status = complete(*change); !status.ok()) {
              return Tell("modify", status);
            }
          }
          change->request.set_type(*change->type);
          return CallAndPrint(globals, "ModifyResource", &::vmservice::VMClient::ModifyResource,
                              change->request);
        });
  }

  CommandLine& commands_;
  CLI::App* const modify_;
  const SharedChange change_;
};

int SendFile(const Globals& globals, const Change& change) {
  if (change.request_file.empty()) {
    PrintError("modify: give a resource or --request FILE (see bothyctl modify --help)");
    return kExitUsage;
  }
  ModifyResourceRequest request;
  if (const absl::Status status = ReadJsonFile(change.request_file, &request); !status.ok()) {
    return Tell("modify", status);
  }
  return CallAndPrint(globals, "ModifyResource", &::vmservice::VMClient::ModifyResource, request);
}

}  // namespace

void AddModifyVerb(CommandLine& commands) {
  CLI::App* const verb =
      commands.AddVerb(&commands.app(), "modify",
                       "Add, remove or update a resource of the VM (ModifyResource)", kExamples);
  verb->require_subcommand(0, 1);
  const auto change = std::make_shared<Change>();
  verb->add_option("--request", change->request_file,
                   "The change as a file: the JSON form of ModifyResourceRequest, - for standard "
                   "input")
      ->type_name("FILE");
  Resources resources(commands, verb, change);
  resources.AddMemory();
  resources.AddProcessor();
  resources.AddProcessorConfig();
  resources.AddScsiDisk();
  resources.AddVpmemDisk();
  resources.AddNic();
  resources.AddDevice();
  commands.OnVerb(verb, [change](const Globals& globals) { return SendFile(globals, *change); });
}

}  // namespace bothy::bothyctl
