#include "machine/pluggable_devices.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::machine {

PluggableDevices::PluggableDevices(const MachineConfig& config, PciTopology& pci,
                                   hypervisor::Vm& vm, memory::GuestMemory& memory,
                                   EventLoop& control)
    : control_(control),
      host_{.pci = pci,
            .vm = vm,
            .memory = memory,
            .units = units_,
            .changes = changes_,
            .processors = config.processors.count},
      pmem_(host_),
      scsi_(host_),
      nics_(host_, config.nic_tuning) {}

absl::StatusOr<std::unique_ptr<PluggableDevices>> PluggableDevices::Create(
    const MachineConfig& config, PciTopology& pci, hypervisor::Vm& vm, memory::GuestMemory& memory,
    EventLoop& control) {
  auto devices =
      std::unique_ptr<PluggableDevices>(new PluggableDevices(config, pci, vm, memory, control));
  RETURN_IF_ERROR(devices->scsi_.AddConfigured(config.scsi_disks));
  RETURN_IF_ERROR(devices->pmem_.AddConfigured(config.pmem_disks));
  RETURN_IF_ERROR(devices->nics_.AddConfigured(config.nics));
  ASSIGN_OR_RETURN(devices->sockets_,
                   HypervisorSockets::Create(config.sockets, devices->host_, control));
  ASSIGN_OR_RETURN(devices->balloon_,
                   MemoryBalloon::Create(config.memory, devices->host_, memory, control));
  try {
    devices->thread_ = std::thread([raw = devices.get()] {
      SetThreadName("changes");
      raw->changes_.Run();
    });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("starting a thread: ", error.what()));
  }
  return devices;
}

PluggableDevices::~PluggableDevices() {
  if (!thread_.joinable()) return;
  changes_.Stop();
  thread_.join();
}

ChangeDone PluggableDevices::OnControl(ChangeDone done) {
  return [this, done = std::move(done)](const absl::Status& status) {
    control_.Post([done, status] { done(status); });
  };
}

void PluggableDevices::ModifyScsiDisk(Change change, ScsiDiskConfig disk, std::stop_token stop,
                                      ChangeDone done) {
  changes_.Post([this, change, disk = std::move(disk), stop = std::move(stop),
                 done = OnControl(std::move(done))] { scsi_.Modify(change, disk, stop, done); });
}

void PluggableDevices::ModifyPmemDisk(Change change, PmemDiskConfig disk, std::stop_token stop,
                                      ChangeDone done) {
  changes_.Post([this, change, disk = std::move(disk), stop = std::move(stop),
                 done = OnControl(std::move(done))] {
    pmem_.Modify(change, disk, stop, [this, done](const absl::Status& status) {
      if (status.ok()) nics_.MemoryChanged();
      done(status);
    });
  });
}

void PluggableDevices::ModifyNic(Change change, NicConfig nic, std::stop_token stop,
                                 ChangeDone done) {
  changes_.Post([this, change, nic = std::move(nic), stop = std::move(stop),
                 done = OnControl(std::move(done))] { nics_.Modify(change, nic, stop, done); });
}

void PluggableDevices::ModifySocket(Change change, SocketConfig socket, ChangeDone done) {
  sockets_->Modify(change, std::move(socket), std::move(done));
}

void PluggableDevices::Inspect(inspect::Node& node) const {
  scsi_.Inspect(node);
  pmem_.Inspect(node);
  nics_.Inspect(node);
  sockets_->Inspect(node);
  balloon_->Inspect(node);
}

}  // namespace bothy::machine
