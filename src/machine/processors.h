// Processors: the vCPU threads of a machine, started and stopped together.
//
// Each vCPU has a thread "vp-N" from construction to destruction, which is in Vcpu::Run or parked.
// Start, Stop and destruction come from the thread that drives the life cycle; RequestStop from
// any, vCPU threads included.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "hypervisor/vm.h"
#include "inspect/node.h"
#include "support/status.h"

namespace bothy::machine {

class Processors {
 public:
  // Both are called on the vCPU's thread. The first: Run came back with kMemoryFault; true when
  // that is mended and the vCPU is to run again. `recoveries_seen` is the vCPU's own, 0 at first:
  // what it knew of recoveries when it faulted, so that vCPUs that met the same fault mend it once.
  using MemoryFaultHandler = std::function<bool(uint64_t& recoveries_seen)>;
  // Run came back with anything else than kKicked, or with a fault that couldn't be mended.
  using FatalHandler = std::function<void(hypervisor::RunResult)>;

  // ResourceExhausted when the host won't give the threads. `handler` must outlive the object.
  static absl::StatusOr<std::unique_ptr<Processors>> Create(
      std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus, hypervisor::ExitHandler& handler,
      MemoryFaultHandler on_memory_fault, FatalHandler on_fatal);
  ~Processors();

  void Start();
  // Asks every vCPU to leave guest code; doesn't wait. A Start after it runs them again.
  void RequestStop();
  // RequestStop, then returns when no vCPU is in guest code or an exit handler.
  void Stop();

  // Vcpu::ExposeEndlessFault for each; false, and nothing, while they aren't to run. One thread at
  // a time.
  bool ExposeEndlessFaults();

  [[nodiscard]] size_t count() const { return vcpus_.size(); }
  [[nodiscard]] hypervisor::Vcpu& vcpu(size_t index) { return *vcpus_[index]; }
  // CPU time of all vCPU threads so far, in ns. Any thread.
  [[nodiscard]] uint64_t RuntimeNs() const;
  // A directory a vCPU. Any thread.
  void Inspect(inspect::Node& node) const;

 private:
  enum class Order { kPark, kRun, kExit };
  Processors(std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus, hypervisor::ExitHandler& handler,
             MemoryFaultHandler on_memory_fault, FatalHandler on_fatal);
  hypervisor::RunResult Run(hypervisor::Vcpu& vcpu, uint64_t& recoveries_seen);
  void ThreadMain(size_t index);
  [[nodiscard]] uint64_t RuntimeNs(size_t index) const;
  void Give(Order order);

  std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus_;
  hypervisor::ExitHandler& handler_;
  const MemoryFaultHandler on_memory_fault_;
  const FatalHandler on_fatal_;

  std::mutex mutex_;
  std::condition_variable order_given_;
  std::condition_variable parked_;
  Order order_ = Order::kPark;  // guarded by mutex_
  uint64_t starts_ = 0;         // guarded by mutex_; tells one Start from the next
  size_t running_ = 0;          // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace bothy::machine
