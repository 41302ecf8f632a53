#include "metrics/catalogue.h"

#include <array>

namespace bothy::metrics {
namespace {

constexpr std::array<std::string_view, 1> kState = {"state"};
constexpr std::array<std::string_view, 1> kLogId = {"log_id"};
constexpr std::array<std::string_view, 1> kStep = {"step"};
constexpr std::array<std::string_view, 1> kVcpu = {"vcpu"};
constexpr std::array<std::string_view, 2> kVcpuReason = {"vcpu", "reason"};
constexpr std::array<std::string_view, 1> kPort = {"port"};
constexpr std::array<std::string_view, 1> kDevice = {"device"};
constexpr std::array<std::string_view, 2> kUnit = {"controller", "lun"};
constexpr std::array<std::string_view, 3> kUnitFormat = {"controller", "lun", "format"};
constexpr std::array<std::string_view, 2> kPair = {"nic", "pair"};
constexpr std::array<std::string_view, 3> kPairReason = {"nic", "pair", "reason"};
constexpr std::array<std::string_view, 1> kNic = {"nic"};

constexpr Type kCounter = Type::kCounter;
constexpr Type kGauge = Type::kGauge;
constexpr Reading kNumber = Reading::kNumber;
constexpr Reading kNanoseconds = Reading::kNanoseconds;
constexpr Reading kText = Reading::kText;

constexpr Definition kCatalogue[] = {
    {"bothy_vm_state", kGauge, "1 for the state the VM is in: none, paused, running or halted.",
     "vm/state", kState, kText},
    {"bothy_vm_info", kGauge, "1 while there is a VM, with the log_id of its CreateVM.",
     "vm/log_id", kLogId, kText},
    {"bothy_vm_restarts_total", kCounter, "Restarts of the VM.", "vm/restarts", {}, kNumber},
    {"bothy_vm_startup_seconds", kGauge,
     "What the steps of CreateVM and the first ResumeVM took; some go on beside each other.",
     "vm/timings/*", kStep, kNanoseconds},

    {"bothy_memory_assigned_bytes", kGauge, "RAM of the guest.", "memory/ram_bytes", {}, kNumber},
    {"bothy_memory_resident_bytes",
     kGauge,
     "RAM of the guest that is resident on the host.",
     "memory/resident_bytes",
     {},
     kNumber},

    {"bothy_vcpu_cpu_seconds_total", kCounter,
     "CPU time of the vCPU's thread, guest code included.", "processors/*/runtime_ns", kVcpu,
     kNanoseconds},
    {"bothy_vcpu_exits_total", kCounter, "Exits of the vCPU to this process, by reason.",
     "processors/*/exits/*", kVcpuReason, kNumber},

    {"bothy_serial_guest_output_bytes_total", kCounter, "Bytes the guest has sent to the port.",
     "chipset/*/relay/bytes_from_guest", kPort, kNumber},
    {"bothy_serial_guest_input_bytes_total", kCounter, "Bytes the guest has been sent by the port.",
     "chipset/*/relay/bytes_to_guest", kPort, kNumber},
    {"bothy_serial_lost_bytes_total", kCounter, "Bytes of the guest that no client got.",
     "chipset/*/relay/bytes_lost", kPort, kNumber},
    {"bothy_serial_connections_total", kCounter,
     "Clients that have connected to the port's socket.", "chipset/*/relay/connections", kPort,
     kNumber},

    {"bothy_pci_plugged_total", kCounter, "Functions plugged into the root port.",
     "pci/ports/*/plugged", kPort, kNumber},
    {"bothy_pci_removed_total", kCounter, "Functions removed from the root port.",
     "pci/ports/*/removed", kPort, kNumber},
    {"bothy_virtio_interrupts_total", kCounter, "Interrupts the device has sent to the guest.",
     "devices/*/virtio/interrupts", kDevice, kNumber},
    {"bothy_device_requests_total", kCounter,
     "Requests that SCSI controllers and persistent memory have taken from their queues.",
     "devices/*/requests", kDevice, kNumber},

    {"bothy_disk_commands_total", kCounter, "SCSI commands that started, of any kind.",
     "devices/*/luns/*/commands", kUnit, kNumber},
    {"bothy_disk_commands_in_flight", kGauge, "SCSI commands under way.",
     "devices/*/luns/*/in_flight", kUnit, kNumber},
    {"bothy_disk_reads_total", kCounter, "Reads of the disk.", "devices/*/luns/*/reads", kUnit,
     kNumber},
    {"bothy_disk_writes_total", kCounter, "Writes to the disk.", "devices/*/luns/*/writes", kUnit,
     kNumber},
    {"bothy_disk_flushes_total", kCounter, "Flushes of the disk.", "devices/*/luns/*/flushes",
     kUnit, kNumber},
    {"bothy_disk_unmaps_total", kCounter, "Discards, and zeros that may give space back.",
     "devices/*/luns/*/unmaps", kUnit, kNumber},
    {"bothy_disk_read_bytes_total", kCounter, "Bytes read from the disk.",
     "devices/*/luns/*/read_bytes", kUnit, kNumber},
    {"bothy_disk_written_bytes_total", kCounter, "Bytes written to the disk.",
     "devices/*/luns/*/written_bytes", kUnit, kNumber},
    {"bothy_disk_unmapped_bytes_total", kCounter, "Bytes discarded.",
     "devices/*/luns/*/unmapped_bytes", kUnit, kNumber},
    {"bothy_disk_aborted_total", kCounter, "SCSI commands that task management or a reset ended.",
     "devices/*/luns/*/aborted", kUnit, kNumber},
    {"bothy_disk_refused_total", kCounter, "SCSI commands answered with ILLEGAL REQUEST.",
     "devices/*/luns/*/refused", kUnit, kNumber},
    {"bothy_disk_errors_total", kCounter, "Operations of the disk that failed.",
     "devices/*/luns/*/errors", kUnit, kNumber},
    {"bothy_disk_size_bytes", kGauge, "Size of the disk.", "devices/*/luns/*/disk/size_bytes",
     kUnit, kNumber},
    {"bothy_disk_info", kGauge, "1 for a disk that is there, with the format of its image.",
     "devices/*/luns/*/disk/format", kUnitFormat, kText},

    {"bothy_pmem_flushes_total", kCounter, "Flushes of the persistent memory.",
     "devices/*/window/flushes", kDevice, kNumber},
    {"bothy_pmem_failed_flushes_total", kCounter, "Flushes of the persistent memory that failed.",
     "devices/*/window/failed_flushes", kDevice, kNumber},
    {"bothy_pmem_written_bytes_total", kCounter, "Bytes that flushes have written to the image.",
     "devices/*/window/written_bytes", kDevice, kNumber},
    {"bothy_pmem_mapped_bytes", kGauge, "Persistent memory that is the image file's own pages.",
     "devices/*/window/mapped_bytes", kDevice, kNumber},
    {"bothy_pmem_populated_bytes", kGauge, "Persistent memory that was read from the image.",
     "devices/*/window/populated_bytes", kDevice, kNumber},

    {"bothy_net_link_up", kGauge, "Whether the card has a link.", "devices/*/card/link_up", kNic,
     kNumber},
    {"bothy_net_received_frames_total", kCounter, "Frames that reached the guest.",
     "devices/*/card/pairs/*/received_frames", kPair, kNumber},
    {"bothy_net_received_bytes_total", kCounter, "Bytes of frames that reached the guest.",
     "devices/*/card/pairs/*/received_bytes", kPair, kNumber},
    {"bothy_net_sent_frames_total", kCounter, "Frames the guest has sent.",
     "devices/*/card/pairs/*/sent_frames", kPair, kNumber},
    {"bothy_net_sent_bytes_total", kCounter, "Bytes of frames the guest has sent.",
     "devices/*/card/pairs/*/sent_bytes", kPair, kNumber},
    {"bothy_net_drops_total", kCounter, "Frames that were dropped, by reason.",
     "devices/*/card/pairs/*/drops/*", kPairReason, kNumber},
};

}  // namespace

std::span<const Definition> Catalogue() { return kCatalogue; }

}  // namespace bothy::metrics
