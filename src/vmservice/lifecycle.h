// Lifecycle: which call is legal when, and the order in which calls change the machine.
//
// Calls that change the state are queued and done one after another; the slow part of each runs on
// the machine thread, so the control thread answers other calls meanwhile. The legal phase of every
// call is one table (kLegality in lifecycle.cc), contract.md's "Lifecycle".
//
// Everything here is control thread only, except what Machine's own header says. Callbacks come on
// the control thread, possibly before the call returns.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "inspect/node.h"
#include "machine/machine.h"
#include "support/event_loop.h"
#include "support/log.h"
#include "support/status.h"
#include "vmservice/resource_changes.h"

namespace bothy::vmservice {

enum class State : uint8_t { kNoVm, kPaused, kRunning, kHalted };

class Lifecycle {
 public:
  using Call = PendingCall;
  using Done = Call::Done;

  // `control` is the loop of the control thread; both outlive the object.
  Lifecycle(EventLoop& control, machine::MachineFactory factory);
  // Tears the VM down if there is one; queued calls are answered Cancelled.
  ~Lifecycle();
  Lifecycle(const Lifecycle&) = delete;
  Lifecycle& operator=(const Lifecycle&) = delete;

  // Records of the VM carry `log_id` from now until it is freed; `remark`, if there is one, is the
  // first. A stop of what is returned has a creation that still goes on given up: for a caller that
  // is gone.
  std::stop_source Create(machine::MachineConfig config, std::string log_id, std::string remark,
                          Call call);
  // From now on there is no new VM, for a server that ends: a creation under way is given up, and
  // every further one, too, is answered Cancelled.
  void EndCreating();
  void Resume(Call call);
  void Pause(Call call);
  void Teardown(Call call);

  // A change of a resource, while paused or running. It keeps its place among the calls above until
  // it begins; then it goes on beside them, and only a later change of the same resource waits for
  // it. A VM that halts or is torn down has changes that still wait give up: FailedPrecondition.
  // The id is for CancelChange.
  uint64_t Modify(ResourceChange change, Call call);
  // Has a change give up whose caller is gone; nothing, once it has been answered.
  void CancelChange(uint64_t id);

  // Answers when the VM has halted or is freed. The id is for CancelWait; 0 when `done` was called
  // already.
  uint64_t Wait(Done done);
  void CancelWait(uint64_t id);

  [[nodiscard]] State state() const { return state_; }
  // "power-off", "reset", "triple-fault" or "emulation-failure" while halted, else empty.
  [[nodiscard]] const std::string& halt_reason() const { return halt_reason_; }
  // The machine, while there is one that isn't being freed. For Stats and AskGuestMemory.
  [[nodiscard]] machine::Machine* machine() const { return machine_.get(); }
  // The root of the state tree: "vm", and what the machine has.
  void Inspect(inspect::Node& root) const;

 private:
  enum class Operation : uint8_t { kCreate, kResume, kPause, kTeardown, kModify, kPowerEvent };
  struct Queued {
    Operation operation = Operation::kTeardown;
    Call call = {};
    machine::MachineConfig config = {};       // kCreate
    std::string log_id = {};                  // kCreate
    std::string remark = {};                  // kCreate
    std::stop_source stop{std::nostopstate};  // kCreate
    uint64_t change_id = 0;                   // kModify
    ResourceChange change = {};               // kModify
    chipset::PowerEvent power_event{};        // kPowerEvent
    uint64_t machine_id = 0;                  // kPowerEvent: of which machine
  };

  void Enqueue(Queued queued);
  void StartNext();
  void Begin(Queued queued);
  void BeginCreate(Queued queued);
  void BeginResume(Queued queued);
  void BeginPause(Queued queued);
  void BeginTeardown(Queued queued);
  void BeginModify(Queued queued);
  void BeginPowerEvent(const Queued& queued);
  // Runs `work` on the machine thread, then `after` on the control thread with its status.
  void Work(std::function<absl::Status()> work, std::function<void(absl::Status)> after);
  // Ends the operation under way and begins the next.
  void Finish();
  void Free(std::function<void()> after);
  void FreeMachine(std::function<void()> after);
  void Halt(chipset::PowerEvent event);
  void WakeWaiters();
  void OnPowerEvent(uint64_t machine_id, chipset::PowerEvent event);

  EventLoop& control_;
  const machine::MachineFactory factory_;
  State state_ = State::kNoVm;
  std::string halt_reason_;
  std::unique_ptr<machine::Machine> machine_;
  std::unique_ptr<ResourceChanges> changes_;     // of machine_
  std::stop_source creating_{std::nostopstate};  // of the creation under way, or the last one
  bool creating_ended_ = false;
  machine::PowerActions power_actions_;
  LogLimiter power_log_;
  uint64_t machine_id_ = 0;
  std::deque<Queued> queue_;
  bool busy_ = false;
  bool starting_ = false;  // StartNext is under way
  uint64_t next_change_ = 1;
  // For inspection.
  std::string log_id_;
  std::chrono::nanoseconds create_time_{0};
  uint64_t restarts_ = 0;
  std::map<uint64_t, Done> waiters_;
  uint64_t next_waiter_ = 1;
  // Expires when the object does, for posts from other threads that may come after it.
  std::shared_ptr<Lifecycle*> self_;
  // Last: its thread ends before what it works on goes.
  LoopThread machine_thread_;
};

}  // namespace bothy::vmservice
