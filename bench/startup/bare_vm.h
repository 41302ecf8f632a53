// The least that a VM costs: a program that makes the system calls CreateVM needs, and nothing
// else.
#pragma once

#include <cstdint>
#include <memory>

namespace bothy::bench {

// What a process does once: /dev/kvm, and the host's CPUID.
class BareHost {
 public:
  BareHost();
  ~BareHost();
  BareHost(const BareHost&) = delete;
  BareHost& operator=(const BareHost&) = delete;

 private:
  friend class BareVm;
  struct State;
  const std::unique_ptr<State> state_;
};

// One VM with one vCPU that is ready to run 64-bit code, interrupt controllers, PIT, and RAM in a
// memfd. Fails the benchmark when the host can't.
class BareVm {
 public:
  BareVm(const BareHost& host, uint64_t ram_bytes);
  ~BareVm();
  BareVm(const BareVm&) = delete;
  BareVm& operator=(const BareVm&) = delete;

 private:
  int vm_ = -1;
  int vcpu_ = -1;
  int ram_fd_ = -1;
  void* ram_ = nullptr;
  void* run_ = nullptr;
  uint64_t ram_bytes_ = 0;
  uint64_t run_bytes_ = 0;
};

}  // namespace bothy::bench
