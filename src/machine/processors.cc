#include "machine/processors.h"

#include <pthread.h>

#include <ctime>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::machine {

using hypervisor::RunResult;

Processors::Processors(std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus,
                       hypervisor::ExitHandler& handler, MemoryFaultHandler on_memory_fault,
                       FatalHandler on_fatal)
    : vcpus_(std::move(vcpus)),
      handler_(handler),
      on_memory_fault_(std::move(on_memory_fault)),
      on_fatal_(std::move(on_fatal)) {}

absl::StatusOr<std::unique_ptr<Processors>> Processors::Create(
    std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus, hypervisor::ExitHandler& handler,
    MemoryFaultHandler on_memory_fault, FatalHandler on_fatal) {
  auto processors = std::unique_ptr<Processors>(
      new Processors(std::move(vcpus), handler, std::move(on_memory_fault), std::move(on_fatal)));
  for (size_t i = 0; i < processors->vcpus_.size(); ++i) {
    try {
      std::thread& thread =
          processors->threads_.emplace_back([raw = processors.get(), i] { raw->ThreadMain(i); });
      // Here rather than in the thread: who looks for vCPU threads finds them once a VM is there.
      ::pthread_setname_np(thread.native_handle(), absl::StrCat("vp-", i).c_str());
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "processor_config.processor_count: starting the thread of vCPU ", i, ": ", error.what()));
    }
  }
  return processors;
}

Processors::~Processors() {
  Give(Order::kExit);
  for (std::thread& thread : threads_) thread.join();
}

void Processors::Give(Order order) {
  {
    const std::lock_guard lock(mutex_);
    order_ = order;
    if (order == Order::kRun) ++starts_;
  }
  if (order == Order::kRun) {
    order_given_.notify_all();
    return;
  }
  for (const auto& vcpu : vcpus_) vcpu->Kick();
  order_given_.notify_all();
}

void Processors::Start() { Give(Order::kRun); }

void Processors::RequestStop() { Give(Order::kPark); }

void Processors::Stop() {
  RequestStop();
  std::unique_lock lock(mutex_);
  parked_.wait(lock, [this] { return running_ == 0; });
}

bool Processors::ExposeEndlessFaults() {
  {
    const std::lock_guard lock(mutex_);
    if (order_ != Order::kRun) return false;
  }
  for (const auto& vcpu : vcpus_) vcpu->ExposeEndlessFault();
  return true;
}

RunResult Processors::Run(hypervisor::Vcpu& vcpu, uint64_t& recoveries_seen) {
  RunResult result = vcpu.Run(handler_);
  while (result == RunResult::kMemoryFault && on_memory_fault_(recoveries_seen)) {
    result = vcpu.Run(handler_);
  }
  return result;
}

void Processors::ThreadMain(size_t index) {
  hypervisor::Vcpu& vcpu = *vcpus_[index];
  uint64_t ended_start = 0;  // the Start whose run a fatal exit has ended for this vCPU
  uint64_t recoveries_seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    order_given_.wait(lock, [&] {
      return order_ == Order::kExit || (order_ == Order::kRun && starts_ != ended_start);
    });
    if (order_ == Order::kExit) return;
    const uint64_t start = starts_;
    ++running_;
    lock.unlock();
    const RunResult result = Run(vcpu, recoveries_seen);
    if (result != RunResult::kKicked) on_fatal_(result);
    lock.lock();
    if (result != RunResult::kKicked) ended_start = start;
    if (--running_ == 0) parked_.notify_all();
  }
}

uint64_t Processors::RuntimeNs() const {
  uint64_t total = 0;
  for (size_t i = 0; i < threads_.size(); ++i) total += RuntimeNs(i);
  return total;
}

uint64_t Processors::RuntimeNs(size_t index) const {
  clockid_t clock{};
  timespec time{};
  std::thread& thread = const_cast<std::thread&>(threads_[index]);
  if (::pthread_getcpuclockid(thread.native_handle(), &clock) != 0 ||
      ::clock_gettime(clock, &time) != 0) {
    return 0;
  }
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

void Processors::Inspect(inspect::Node& node) const {
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    node.Child(absl::StrCat(i), [this, i](inspect::Node& vcpu) {
      vcpu.Value("runtime_ns", RuntimeNs(i));
      vcpu.Child("exits", [this, i](inspect::Node& exits) {
        const hypervisor::ExitCounts counts = vcpus_[i]->exit_counts();
        exits.Value("port", counts.port);
        exits.Value("mmio", counts.mmio);
        exits.Value("interrupted", counts.interrupted);
        exits.Value("other", counts.other);
      });
    });
  }
}

}  // namespace bothy::machine
