#include "machine/pc_machine.h"

#include <atomic>
#include <future>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "acpi/tables.h"
#include "boot/kernel_image.h"
#include "chipset/loop_timer.h"
#include "hypervisor/kvm/kvm.h"
#include "machine/chipset_devices.h"
#include "machine/pci_topology.h"
#include "machine/pluggable_devices.h"
#include "machine/processors.h"
#include "machine/startup_steps.h"
#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/log.h"
#include "support/trace.h"

namespace bothy::machine {
namespace {

using chipset::PowerEvent;
using hypervisor::RunResult;
using memory::GuestMemory;
using memory::kMiB;

// How often vCPUs are looked at that may be stuck in a fault.
constexpr uint64_t kFaultWatchNs = 1'000'000'000;

bool MayRestart(const PowerActions& actions) {
  return actions.shutdown == PowerAction::kRestart || actions.reset == PowerAction::kRestart ||
         actions.crash == PowerAction::kRestart;
}

class PcMachine final : public Machine, private chipset::PowerSink {
 public:
  static absl::StatusOr<std::unique_ptr<Machine>> Create(
      std::shared_ptr<hypervisor::Hypervisor> hypervisor, EventLoop& control,
      const MachineConfig& config, PowerObserver observer, const std::stop_token& stop);
  ~PcMachine() override;

  absl::Status Resume() override;
  absl::Status Pause() override;
  absl::Status Restart() override;
  [[nodiscard]] MachineStats Stats() const override;
  void AskGuestMemory(std::function<void()> done) override {
    devices_->AskGuestMemory(std::move(done));
  }
  void ModifyScsiDisk(Change change, ScsiDiskConfig disk, std::stop_token stop,
                      ChangeDone done) override;
  void ModifyPmemDisk(Change change, PmemDiskConfig disk, std::stop_token stop,
                      ChangeDone done) override;
  void ModifyNic(Change change, NicConfig nic, std::stop_token stop, ChangeDone done) override;
  void ModifySocket(Change change, SocketConfig socket, ChangeDone done) override;
  void Inspect(inspect::Node& root) const override;
  void InspectStartup(inspect::Node& timings) const override { steps_.Inspect(timings); }

 private:
  PcMachine(std::shared_ptr<hypervisor::Hypervisor> hypervisor, EventLoop& control,
            const MachineConfig& config, PowerObserver observer)
      : hypervisor_(std::move(hypervisor)),
        config_(config),
        observer_(std::move(observer)),
        fault_watch_(control, [this] { WatchFaults(); }) {}

  absl::Status OpenBootFiles(const memory::Layout& layout);
  absl::Status BuildVm();
  absl::StatusOr<std::vector<std::unique_ptr<hypervisor::Vcpu>>> BuildVcpus();
  absl::Status BuildHardware(EventLoop& control);
  absl::StatusOr<hypervisor::EntryRegisters> LoadBootFiles();
  absl::StatusOr<uint64_t> WriteAcpiTables();
  [[nodiscard]] boot::LoadRequest BootRequest(uint64_t rsdp_gpa) const;
  // Looks for faults that don't end (Vcpu::ExposeEndlessFault), and goes on with that, while there
  // is persistent memory and it runs. On the control thread.
  void WatchFaults();
  void OnPowerEvent(PowerEvent event) override;

  const std::shared_ptr<hypervisor::Hypervisor> hypervisor_;
  const MachineConfig config_;
  const PowerObserver observer_;
  // Set by the first power event of a run; until the next Restart no vCPU runs again.
  std::atomic<bool> power_event_{false};
  bool running_ = false;
  LogLimiter log_;  // of what the guest can have us say again and again
  StartupSteps steps_;
  std::optional<boot::KernelImage> kernel_;
  std::optional<boot::Initrd> initrd_;
  // Destroyed from the last to the first: vCPUs, devices, VM, memory.
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<hypervisor::Vm> vm_;
  std::unique_ptr<ChipsetDevices> chipset_;
  std::unique_ptr<PluggableDevices> devices_;
  std::unique_ptr<Processors> processors_;
  chipset::LoopTimer fault_watch_;
};

absl::StatusOr<std::unique_ptr<Machine>> PcMachine::Create(
    std::shared_ptr<hypervisor::Hypervisor> hypervisor, EventLoop& control,
    const MachineConfig& config, PowerObserver observer, const std::stop_token& stop) {
  const hypervisor::HostLimits& limits = hypervisor->limits();
  if (config.processors.count > limits.max_vcpus) {
    return absl::InvalidArgumentError(
        absl::StrCat("processor_config.processor_count: ", config.processors.count,
                     " is out of range 0..", limits.max_vcpus));
  }
  absl::StatusOr<memory::Layout> layout =
      memory::ComputeLayout({.ram_bytes = config.memory.ram_mib * kMiB,
                             .low_mmio_gap_bytes = config.memory.low_mmio_gap_mib * kMiB,
                             .high_mmio_base_bytes = config.memory.high_mmio_base_mib * kMiB,
                             .high_mmio_gap_bytes = config.memory.high_mmio_gap_mib * kMiB,
                             .pci_buses = PciTopology::BusCount(config.pci.hotplug_ports),
                             .physical_address_bits = limits.physical_address_bits});
  if (!layout.ok()) {
    return absl::Status(layout.status().code(),
                        absl::StrCat("memory_config.", std::string(layout.status().message())));
  }
  auto machine = std::unique_ptr<PcMachine>(
      new PcMachine(std::move(hypervisor), control, config, std::move(observer)));
  RETURN_IF_ERROR(machine->OpenBootFiles(*layout));
  absl::StatusOr<std::unique_ptr<GuestMemory>> memory = [&] {
    const auto step = machine->steps_.Begin("ram");
    return GuestMemory::Create(
        {.layout = *layout, .populate_and_lock = !config.memory.allow_overcommit, .stop = stop});
  }();
  if (absl::IsCancelled(memory.status())) return memory.status();
  if (!memory.ok()) {
    return absl::Status(memory.status().code(),
                        absl::StrCat("memory_config.", std::string(memory.status().message())));
  }
  machine->memory_ = std::move(memory).value();
  if (stop.stop_requested()) return absl::CancelledError("the creation was given up");

  // Unpacking a kernel takes longer than all the rest: it has a thread of its own, beside the
  // hypervisor's set-up.
  const auto load = [raw = machine.get()] { return raw->LoadBootFiles(); };
  std::future<absl::StatusOr<hypervisor::EntryRegisters>> loading;
  try {
    loading = std::async(std::launch::async, [load] {
      SetThreadName("boot-load");
      return load();
    });
  } catch (const std::system_error&) {
    // A limit on threads: it is done here, after the set-up.
    loading = std::async(std::launch::deferred, load);
  }
  const absl::Status built = machine->BuildHardware(control);
  const absl::StatusOr<hypervisor::EntryRegisters> entry = loading.get();
  RETURN_IF_ERROR(built);
  RETURN_IF_ERROR(entry.status());
  RETURN_IF_ERROR(machine->processors_->vcpu(0).SetEntry(*entry));
  return machine;
}

PcMachine::~PcMachine() {
  const TraceSpan span("machine", "free");
  if (running_) {
    const absl::Status status = Pause();
    if (!status.ok()) LogError("machine", std::string(status.message()));
  }
}

absl::Status PcMachine::OpenBootFiles(const memory::Layout& layout) {
  const auto step = steps_.Begin("boot_files");
  ASSIGN_OR_RETURN(kernel_, boot::KernelImage::Open(config_.direct_boot.kernel_path));
  if (!config_.direct_boot.initrd_path.empty()) {
    ASSIGN_OR_RETURN(initrd_, boot::Initrd::Open(config_.direct_boot.initrd_path));
  }
  return kernel_->Check(BootRequest(acpi::kTableArea.base), layout);
}

boot::LoadRequest PcMachine::BootRequest(uint64_t rsdp_gpa) const {
  return {.initrd = initrd_.has_value() ? &*initrd_ : nullptr,
          .command_line = config_.direct_boot.command_line,
          .rsdp_gpa = rsdp_gpa,
          .unpack = config_.direct_boot.guest_unpacks ? boot::Unpack::kGuest : boot::Unpack::kHost,
          // Populated RAM has its huge pages already.
          .huge_pages = config_.memory.allow_overcommit};
}

absl::StatusOr<uint64_t> PcMachine::WriteAcpiTables() {
  const memory::Layout& layout = memory_->layout();
  acpi::TablesConfig tables;
  for (uint32_t i = 0; i < config_.processors.count; ++i)
    tables.processors.push_back({.apic_id = i});
  for (const SerialPortConfig& port : config_.serial_ports)
    tables.serial_ports.push_back(port.port);
  tables.ecam = layout.ecam;
  tables.pci_mmio32 = layout.pci_mmio32;
  tables.pci_mmio64 = layout.pci_mmio64;
  return acpi::WriteTables(tables, *memory_);
}

absl::StatusOr<hypervisor::EntryRegisters> PcMachine::LoadBootFiles() {
  const auto step = steps_.Begin("load_kernel");
  ASSIGN_OR_RETURN(const uint64_t rsdp, WriteAcpiTables());
  return kernel_->Load(BootRequest(rsdp), *memory_);
}

absl::Status PcMachine::BuildVm() {
  const auto step = steps_.Begin("hypervisor");
  ASSIGN_OR_RETURN(vm_, hypervisor_->CreateVm());
  for (const memory::RamRange& range : memory_->layout().ram) {
    ASSIGN_OR_RETURN(const std::span<uint8_t> host,
                     memory_->HostRange(range.guest.base, range.guest.size));
    RETURN_IF_ERROR(vm_->MapRam(range.guest.base, host));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::unique_ptr<hypervisor::Vcpu>>> PcMachine::BuildVcpus() {
  const auto step = steps_.Begin("vcpus");
  std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus;
  for (uint32_t i = 0; i < config_.processors.count; ++i) {
    ASSIGN_OR_RETURN(vcpus.emplace_back(), vm_->CreateVcpu(i, config_.processors.count));
  }
  if (MayRestart(config_.power)) {
    RETURN_IF_ERROR(vm_->CapturePowerOnState());
    for (const auto& vcpu : vcpus) RETURN_IF_ERROR(vcpu->CapturePowerOnState());
  }
  return vcpus;
}

absl::Status PcMachine::BuildHardware(EventLoop& control) {
  RETURN_IF_ERROR(BuildVm());
  {
    const auto step = steps_.Begin("chipset");
    ASSIGN_OR_RETURN(chipset_,
                     ChipsetDevices::Create(config_, memory_->layout(), *vm_, control, *this));
  }
  {
    const auto step = steps_.Begin("devices");
    ASSIGN_OR_RETURN(devices_,
                     PluggableDevices::Create(config_, chipset_->pci(), *vm_, *memory_, control));
  }
  ASSIGN_OR_RETURN(std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus, BuildVcpus());
  const auto on_memory_fault = [this](uint64_t& recoveries_seen) {
    return devices_->RecoverMemory(recoveries_seen);
  };
  const auto on_fatal = [this](RunResult result) {
    switch (result) {
      case RunResult::kTripleFault:
        return OnPowerEvent(PowerEvent::kTripleFault);
      case RunResult::kReset:
        return OnPowerEvent(PowerEvent::kReset);
      case RunResult::kMemoryFault:
        log_.Log(LogLevel::kError, "machine",
                 "host memory that the guest needs can't be accessed (KVM_RUN: EFAULT)");
        return OnPowerEvent(PowerEvent::kEmulationFailure);
      case RunResult::kEmulationFailure:
        return OnPowerEvent(PowerEvent::kEmulationFailure);
      case RunResult::kKicked:
        break;
    }
  };
  ASSIGN_OR_RETURN(processors_,
                   Processors::Create(std::move(vcpus), *chipset_, on_memory_fault, on_fatal));
  return absl::OkStatus();
}

void PcMachine::OnPowerEvent(PowerEvent event) {
  if (power_event_.exchange(true)) return;
  processors_->RequestStop();
  observer_(event);
}

absl::Status PcMachine::Resume() {
  CHECK(!running_);
  const auto step = steps_.Begin("resume");
  // The guest did it while it was being paused; vmservice/ hears of it and takes it from there.
  if (power_event_) return absl::OkStatus();
  RETURN_IF_ERROR(vm_->StartClocks());
  chipset_->clock().Start();
  for (StateUnit* unit : chipset_->units()) unit->Start();
  devices_->units().StartAll();
  running_ = true;
  processors_->Start();
  if (devices_->HasPersistentMemory()) fault_watch_.Set(kFaultWatchNs);
  return absl::OkStatus();
}

void PcMachine::WatchFaults() {
  if (devices_->HasPersistentMemory() && processors_->ExposeEndlessFaults()) {
    fault_watch_.Set(kFaultWatchNs);
  }
}

absl::Status PcMachine::Pause() {
  if (!running_) return absl::OkStatus();
  const TraceSpan span("machine", "pause");
  processors_->Stop();
  running_ = false;
  devices_->units().StopAll();
  const std::vector<StateUnit*>& units = chipset_->units();
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) (*unit)->Stop();
  chipset_->clock().Stop();
  return vm_->StopClocks();
}

absl::Status PcMachine::Restart() {
  CHECK(!running_);
  const TraceSpan span("machine", "restart");
  for (StateUnit* unit : chipset_->units()) unit->Reset();
  devices_->units().ResetAll();
  RETURN_IF_ERROR(memory_->DiscardAll());
  RETURN_IF_ERROR(vm_->RestorePowerOnState());
  for (size_t i = 0; i < processors_->count(); ++i) {
    RETURN_IF_ERROR(processors_->vcpu(i).RestorePowerOnState());
  }
  ASSIGN_OR_RETURN(const hypervisor::EntryRegisters entry, LoadBootFiles());
  RETURN_IF_ERROR(processors_->vcpu(0).SetEntry(entry));
  power_event_ = false;
  return absl::OkStatus();
}

MachineStats PcMachine::Stats() const {
  const uint64_t assigned = memory_->layout().ram_bytes;
  const uint64_t resident = memory_->ResidentBytes();
  return {.assigned_ram_bytes = assigned,
          .resident_ram_bytes = resident,
          // Pages of a memfd are charged as they appear.
          .reserved_ram_bytes = resident,
          .available_ram_bytes = devices_->AvailableGuestMemory(),
          .vcpu_runtime_ns = processors_->RuntimeNs()};
}

void PcMachine::ModifyScsiDisk(Change change, ScsiDiskConfig disk, std::stop_token stop,
                               ChangeDone done) {
  devices_->ModifyScsiDisk(change, std::move(disk), std::move(stop), std::move(done));
}

void PcMachine::ModifyPmemDisk(Change change, PmemDiskConfig disk, std::stop_token stop,
                               ChangeDone done) {
  const auto watched = [this, done = std::move(done)](const absl::Status& status) {
    fault_watch_.Set(kFaultWatchNs);
    done(status);
  };
  devices_->ModifyPmemDisk(change, std::move(disk), std::move(stop), watched);
}

void PcMachine::ModifyNic(Change change, NicConfig nic, std::stop_token stop, ChangeDone done) {
  devices_->ModifyNic(change, std::move(nic), std::move(stop), std::move(done));
}

void PcMachine::ModifySocket(Change change, SocketConfig socket, ChangeDone done) {
  devices_->ModifySocket(change, std::move(socket), std::move(done));
}

void PcMachine::Inspect(inspect::Node& root) const {
  root.Child("memory", *memory_);
  root.Child("processors", *processors_);
  root.Child("chipset", *chipset_);
  root.Child("pci", chipset_->pci());
  root.Child("devices", *devices_);
}

}  // namespace

MachineFactory PcMachineFactory(EventLoop& control) {
  auto hypervisor = std::make_shared<std::shared_ptr<hypervisor::Hypervisor>>();
  return [hypervisor, &control](
             const MachineConfig& config, PowerObserver observer,
             const std::stop_token& stop) -> absl::StatusOr<std::unique_ptr<Machine>> {
    if (*hypervisor == nullptr) {
      ASSIGN_OR_RETURN(*hypervisor, hypervisor::kvm::OpenKvm());
    }
    return PcMachine::Create(*hypervisor, control, config, std::move(observer), stop);
  };
}

}  // namespace bothy::machine
