// Vm and Vcpu: the hypervisor as the rest of bothy sees it.
//
// One implementation so far, kvm/. Nothing above this folder knows an ioctl. Interrupt controllers
// (PIC, I/O APIC, LAPIC), the PIT and the paravirtual clock are the hypervisor's own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "hypervisor/interrupts.h"
#include "support/status.h"

namespace bothy::hypervisor {

// What this host can do, for validation before a VM is made.
struct HostLimits {
  uint32_t max_vcpus = 0;
  uint32_t physical_address_bits = 0;  // of guest-physical addresses
};

// Answers the accesses a vCPU makes to what isn't RAM. Called on that vCPU's thread, concurrently
// for different vCPUs. Addresses and data are the guest's; sizes are 1, 2, 4 or 8 bytes (ports: at
// most 4).
class ExitHandler {
 public:
  virtual ~ExitHandler() = default;
  virtual void PortRead(uint16_t port, std::span<uint8_t> data) = 0;
  virtual void PortWrite(uint16_t port, std::span<const uint8_t> data) = 0;
  virtual void MmioRead(uint64_t address, std::span<uint8_t> data) = 0;
  virtual void MmioWrite(uint64_t address, std::span<const uint8_t> data) = 0;
};

// Why Vcpu::Run came back.
enum class RunResult : uint8_t {
  kKicked,       // Kick was called; nothing is half done
  kTripleFault,  // the vCPU shut down
  kReset,        // the hypervisor itself saw the guest ask for a reset
  kMemoryFault,  // host memory behind a slot couldn't be accessed: a mapped file was truncated,
                 // or its file system is full. Once it can be, Run goes on with the same access
  kEmulationFailure,  // an instruction or entry state the hypervisor can't execute; the log says
                      // which
};

// A segment register with its hidden part; the fields are those of the descriptor (Intel SDM
// 3A, 3.4.5).
struct Segment {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;        // bytes, less one; already scaled
  uint8_t type = 0;          // 4 bits
  bool code_or_data = true;  // the S bit; false: system segment
  bool long_mode = false;    // the L bit
  bool default_32 = false;   // the D/B bit
  bool granularity_4k = false;
};

// Registers at the first instruction of a vCPU that doesn't start from the reset vector. General
// registers not named here are zero, no IDT is loaded.
struct EntryRegisters {
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  uint64_t rflags = 0x2;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  Segment cs;
  Segment data;  // ds, es, fs, gs, ss
  Segment tr;
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;
};

// Counted per vCPU since creation; relaxed atomics, any thread may read.
struct ExitCounts {
  uint64_t port = 0;
  uint64_t mmio = 0;
  uint64_t interrupted = 0;
  uint64_t other = 0;
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  // Runs guest code on the calling thread, always the same one, until Kick, a memory fault or a
  // fatal exit.
  virtual RunResult Run(ExitHandler& handler) = 0;
  // Makes the Run that is under way, or the next one, return kKicked soon. Any thread.
  virtual void Kick() = 0;
  // The hypervisor may try an access to memory that the host can't provide again and again, within
  // Run, for ever. Called about once a second, this has a Run that does so return kMemoryFault
  // within a few calls. A vCPU whose faults get resolved isn't disturbed. Any thread, one at a
  // time.
  virtual void ExposeEndlessFault() = 0;
  [[nodiscard]] virtual ExitCounts exit_counts() const = 0;

  // The rest only while no thread is in Run.
  virtual absl::Status SetEntry(const EntryRegisters& entry) = 0;
  // Remembers the present state as the one that RestorePowerOnState goes back to.
  virtual absl::Status CapturePowerOnState() = 0;
  virtual absl::Status RestorePowerOnState() = 0;
};

// Host memory to show the guest while the Vm runs.
struct MemorySlotOptions {
  uint64_t guest_physical = 0;  // page-aligned
  std::span<uint8_t> host;      // page-aligned, not empty; must outlive the slot
  // What the guest writes there reaches ExitHandler::MmioWrite instead of the memory.
  bool read_only = false;
  bool log_dirty = false;  // for TakeDirtyPages
};

// Host memory that the guest sees until the slot is destroyed. The destructor returns when no vCPU
// can reach the memory any more. Slots must be destroyed before the Vm. Thread-safe.
class MemorySlot {
 public:
  virtual ~MemorySlot() = default;
  // Which pages (4 KiB) the guest has written since the last call, and forgets them: bit n % 64 of
  // word n / 64 is page n. A page written while this runs is in this answer or in the next; what
  // the host itself writes is in neither. FailedPrecondition without `log_dirty`.
  virtual absl::StatusOr<std::vector<uint64_t>> TakeDirtyPages() = 0;
};

// Guest writes that ring an eventfd instead of leaving guest code for user space.
struct DoorbellOptions {
  uint64_t guest_physical = 0;
  // 1, 2, 4 or 8: writes of that many bytes at exactly that address. 0: of any size, which is the
  // fastest kind, since the hypervisor needn't look at the instruction.
  uint32_t size_bytes = 0;
  std::optional<uint64_t> match = std::nullopt;  // only writes of this value; not with a size of 0
  int event_fd = -1;                             // must outlive the doorbell
};

// Attached until it is destroyed, which must be before the Vm is. Reads, and writes that don't
// match, go to the ExitHandler as ever. Thread-safe.
class Doorbell {
 public:
  virtual ~Doorbell() = default;
};

class Vm {
 public:
  virtual ~Vm() = default;

  // Maps `host` bytes as guest RAM at `guest_physical`, both page-aligned. They must outlive the
  // Vm.
  virtual absl::Status MapRam(uint64_t guest_physical, std::span<uint8_t> host) = 0;
  // The same for memory that comes and goes. Any thread, also while vCPUs run. AlreadyExists when
  // the guest has memory there, ResourceExhausted when the hypervisor has no slot left.
  virtual absl::StatusOr<std::unique_ptr<MemorySlot>> MapMemory(
      const MemorySlotOptions& options) = 0;
  // Any thread, also while vCPUs run. AlreadyExists when there is the same doorbell already.
  virtual absl::StatusOr<std::unique_ptr<Doorbell>> AttachDoorbell(
      const DoorbellOptions& options) = 0;
  // A vCPU with APIC id `index`, of `count` in the machine. Vcpus must be destroyed before the Vm.
  virtual absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t index, uint32_t count) = 0;
  // The interrupt line of an input of the interrupt controllers; lines must be destroyed before the
  // Vm.
  virtual std::unique_ptr<IrqLine> CreateIrqLine(uint32_t gsi) = 0;
  // Costs nothing until its EventFd is asked for. Any thread; must be destroyed before the Vm.
  virtual std::unique_ptr<MsiRoute> CreateMsiRoute() = 0;

  // Guest clocks (paravirtual clock, TSC, PIT) stand still between StopClocks and StartClocks. Only
  // while no vCPU runs. StartClocks without a StopClocks before it does nothing.
  virtual absl::Status StopClocks() = 0;
  virtual absl::Status StartClocks() = 0;

  // As Vcpu's: interrupt controllers and PIT.
  virtual absl::Status CapturePowerOnState() = 0;
  virtual absl::Status RestorePowerOnState() = 0;
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;
  [[nodiscard]] virtual const HostLimits& limits() const = 0;
  virtual absl::StatusOr<std::unique_ptr<Vm>> CreateVm() = 0;
};

}  // namespace bothy::hypervisor
