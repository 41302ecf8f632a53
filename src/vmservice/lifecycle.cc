#include "vmservice/lifecycle.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/log.h"

namespace bothy::vmservice {

using chipset::PowerEvent;
using machine::Machine;
using machine::MachineConfig;
using machine::PowerAction;

namespace {

// What a call meets in a state: do it, answer OK because it is so already, or refuse.
enum class Phase : uint8_t { kDo, kNothingToDo, kFailedPrecondition, kAlreadyExists };

// contract.md, "Lifecycle". Rows: no VM, paused, running, halted. Columns: Create, Resume, Pause,
// Teardown, Modify.
constexpr std::array<std::array<Phase, 5>, 4> kLegality = {{
    {Phase::kDo, Phase::kFailedPrecondition, Phase::kFailedPrecondition, Phase::kNothingToDo,
     Phase::kFailedPrecondition},
    {Phase::kAlreadyExists, Phase::kDo, Phase::kNothingToDo, Phase::kDo, Phase::kDo},
    {Phase::kAlreadyExists, Phase::kNothingToDo, Phase::kDo, Phase::kDo, Phase::kDo},
    {Phase::kAlreadyExists, Phase::kFailedPrecondition, Phase::kFailedPrecondition, Phase::kDo,
     Phase::kFailedPrecondition},
}};

const char* StateName(State state) {
  switch (state) {
    case State::kNoVm:
      return "none";
    case State::kPaused:
      return "paused";
    case State::kRunning:
      return "running";
    case State::kHalted:
      return "halted";
  }
  return "";
}

const char* StateText(State state) {
  switch (state) {
    case State::kNoVm:
      return "there is no VM; CreateVM makes one";
    case State::kPaused:
      return "the VM is paused";
    case State::kRunning:
      return "the VM is running";
    case State::kHalted:
      return "the VM has halted; TeardownVM frees it";
  }
  return "";
}

const char* HaltReason(PowerEvent event) {
  switch (event) {
    case PowerEvent::kPowerOff:
      return "power-off";
    case PowerEvent::kReset:
      return "reset";
    case PowerEvent::kTripleFault:
      return "triple-fault";
    case PowerEvent::kEmulationFailure:
      return "emulation-failure";
  }
  return "";
}

PowerAction ActionFor(const machine::PowerActions& actions, PowerEvent event) {
  switch (event) {
    case PowerEvent::kPowerOff:
      return actions.shutdown;
    case PowerEvent::kReset:
      return actions.reset;
    case PowerEvent::kTripleFault:
    case PowerEvent::kEmulationFailure:
      return actions.crash;
  }
  return PowerAction::kHalt;
}

}  // namespace

Lifecycle::Lifecycle(EventLoop& control, machine::MachineFactory factory)
    : control_(control),
      factory_(std::move(factory)),
      self_(std::make_shared<Lifecycle*>(this)),
      machine_thread_("machine") {}

Lifecycle::~Lifecycle() {
  *self_ = nullptr;
  EndCreating();
  for (Queued& queued : queue_) {
    if (queued.call.done) queued.call.done(absl::CancelledError("the server is ending"));
  }
  if (changes_ != nullptr) changes_->Drop(absl::CancelledError("the server is ending"));
  // What the machine thread is doing ends first; then the machine is freed there, as always.
  machine_thread_.loop().PostAndWait([this] { machine_.reset(); });
}

std::stop_source Lifecycle::Create(MachineConfig config, std::string log_id, std::string remark,
                                   Call call) {
  std::stop_source stop;
  Enqueue({.operation = Operation::kCreate,
           .call = std::move(call),
           .config = std::move(config),
           .log_id = std::move(log_id),
           .remark = std::move(remark),
           .stop = stop});
  return stop;
}
void Lifecycle::EndCreating() {
  creating_ended_ = true;
  creating_.request_stop();
}

void Lifecycle::Resume(Call call) {
  Enqueue({.operation = Operation::kResume, .call = std::move(call)});
}
void Lifecycle::Pause(Call call) {
  Enqueue({.operation = Operation::kPause, .call = std::move(call)});
}
void Lifecycle::Teardown(Call call) {
  Enqueue({.operation = Operation::kTeardown, .call = std::move(call)});
}

uint64_t Lifecycle::Modify(ResourceChange change, Call call) {
  const uint64_t id = next_change_++;
  Enqueue({.operation = Operation::kModify,
           .call = std::move(call),
           .change_id = id,
           .change = std::move(change)});
  return id;
}
void Lifecycle::CancelChange(uint64_t id) {
  // One that is still queued is found abandoned when its turn comes.
  if (changes_ != nullptr) changes_->Stop(id);
}

void Lifecycle::Enqueue(Queued queued) {
  // A power event comes first: the state that the calls behind it meet is the one the guest has
  // made.
  if (queued.operation == Operation::kPowerEvent) {
    queue_.push_front(std::move(queued));
  } else {
    queue_.push_back(std::move(queued));
  }
  StartNext();
}

void Lifecycle::StartNext() {
  // An operation that ends at once ends up here again, inside the loop that began it.
  if (std::exchange(starting_, true)) return;
  while (!busy_ && !queue_.empty()) {
    Queued next = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    Begin(std::move(next));
  }
  starting_ = false;
}

void Lifecycle::Finish() {
  busy_ = false;
  StartNext();
}

void Lifecycle::Begin(Queued queued) {
  if (queued.operation == Operation::kPowerEvent) return BeginPowerEvent(queued);
  if (queued.call.abandoned && queued.call.abandoned()) {
    queued.call.done(absl::CancelledError("the caller is gone"));
    return Finish();
  }
  if (queued.operation == Operation::kCreate && creating_ended_) {
    queued.call.done(absl::CancelledError("the server is ending"));
    return Finish();
  }
  switch (kLegality[static_cast<size_t>(state_)][static_cast<size_t>(queued.operation)]) {
    case Phase::kDo:
      break;
    case Phase::kNothingToDo:
      queued.call.done(absl::OkStatus());
      return Finish();
    case Phase::kFailedPrecondition:
      queued.call.done(absl::FailedPreconditionError(StateText(state_)));
      return Finish();
    case Phase::kAlreadyExists:
      queued.call.done(absl::AlreadyExistsError("a VM exists already; TeardownVM frees it"));
      return Finish();
  }
  switch (queued.operation) {
    case Operation::kCreate:
      return BeginCreate(std::move(queued));
    case Operation::kResume:
      return BeginResume(std::move(queued));
    case Operation::kPause:
      return BeginPause(std::move(queued));
    case Operation::kTeardown:
      return BeginTeardown(std::move(queued));
    case Operation::kModify:
      return BeginModify(std::move(queued));
    case Operation::kPowerEvent:
      break;
  }
}

void Lifecycle::Work(std::function<absl::Status()> work, std::function<void(absl::Status)> after) {
  machine_thread_.loop().Post(
      [this, self = self_, work = std::move(work), after = std::move(after)]() mutable {
        absl::Status status = work();
        control_.Post([self, status = std::move(status), after = std::move(after)] {
          if (*self != nullptr) after(status);
        });
      });
}

void Lifecycle::BeginCreate(Queued queued) {
  SetLogId(queued.log_id);
  log_id_ = std::move(queued.log_id);
  if (!queued.remark.empty()) LogInfo("vm", queued.remark);
  const uint64_t id = ++machine_id_;
  struct Building {
    const std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now();
    MachineConfig config;
    std::unique_ptr<Machine> machine;
  };
  auto built = std::make_shared<Building>();
  built->config = std::move(queued.config);
  creating_ = std::move(queued.stop);
  auto observer = [this, self = self_, id](PowerEvent event) {
    control_.Post([self, id, event] {
      if (*self != nullptr) (*self)->OnPowerEvent(id, event);
    });
  };
  auto work = [this, built, observer = std::move(observer),
               stop = creating_.get_token()]() -> absl::Status {
    ASSIGN_OR_RETURN(built->machine, factory_(built->config, observer, stop));
    return absl::OkStatus();
  };
  Work(std::move(work), [this, built, call = std::move(queued.call)](const absl::Status& status) {
    if (!status.ok()) {
      LogWarning("vm", absl::StrCat("CreateVM failed: ", std::string(status.message())));
      SetLogId("");
      call.done(status);
      return Finish();
    }
    machine_ = std::move(built->machine);
    changes_ = std::make_unique<ResourceChanges>(*machine_);
    power_actions_ = built->config.power;
    create_time_ = std::chrono::steady_clock::now() - built->begun;
    restarts_ = 0;
    if (creating_ended_ || (call.abandoned && call.abandoned())) {
      const std::string why = creating_ended_ ? "the server is ending"
                                              : "the caller is gone or its deadline has passed";
      LogInfo("vm", absl::StrCat("freeing a VM that has just been created: ", why));
      return Free([this, call, why] {
        call.done(absl::CancelledError(why));
        Finish();
      });
    }
    state_ = State::kPaused;
    LogInfo("vm", absl::StrCat("created: ", built->config.processors.count, " vCPUs, ",
                               built->config.memory.ram_mib, " MiB"));
    call.done(absl::OkStatus());
    Finish();
  });
}

void Lifecycle::BeginResume(Queued queued) {
  Work([machine = machine_.get()] { return machine->Resume(); },
       [this, call = std::move(queued.call)](const absl::Status& status) {
         if (status.ok() && call.abandoned && call.abandoned()) {
           return Work([machine = machine_.get()] { return machine->Pause(); },
                       [this, call](const absl::Status&) {
                         call.done(absl::CancelledError("the caller is gone"));
                         Finish();
                       });
         }
         if (status.ok()) {
           state_ = State::kRunning;
           LogInfo("vm", "running");
         }
         call.done(status);
         Finish();
       });
}

void Lifecycle::BeginPause(Queued queued) {
  Work([machine = machine_.get()] { return machine->Pause(); },
       [this, call = std::move(queued.call)](const absl::Status& status) {
         if (status.ok() && call.abandoned && call.abandoned()) {
           return Work([machine = machine_.get()] { return machine->Resume(); },
                       [this, call](const absl::Status& resumed) {
                         if (!resumed.ok()) {
                           LogError("vm", absl::StrCat("can't go on after a pause that nobody "
                                                       "waits for: ",
                                                       std::string(resumed.message())));
                           state_ = State::kPaused;
                         }
                         call.done(absl::CancelledError("the caller is gone"));
                         Finish();
                       });
         }
         if (status.ok()) {
           state_ = State::kPaused;
           LogInfo("vm", "paused");
         }
         call.done(status);
         Finish();
       });
}

void Lifecycle::BeginTeardown(Queued queued) {
  Free([this, call = std::move(queued.call)] {
    call.done(absl::OkStatus());
    Finish();
  });
}

// A change only begins here: how long it takes is between it, the guest and the machine.
void Lifecycle::BeginModify(Queued queued) {
  changes_->Start(queued.change_id, std::move(queued.change), std::move(queued.call));
  Finish();
}

// Has changes that are pending give up, then frees the machine on the machine thread. There is no
// VM from the moment it begins to go: what it knew is gone.
void Lifecycle::Free(std::function<void()> after) {
  changes_->EndAll(absl::FailedPreconditionError("the VM has been torn down meanwhile"),
                   [this, after = std::move(after)] { FreeMachine(after); });
}

void Lifecycle::FreeMachine(std::function<void()> after) {
  auto machine = std::make_shared<std::unique_ptr<Machine>>(std::move(machine_));
  Work(
      [machine] {
        machine->reset();
        return absl::OkStatus();
      },
      [this, after = std::move(after)](const absl::Status&) {
        changes_.reset();
        state_ = State::kNoVm;
        halt_reason_.clear();
        LogInfo("vm", "freed");
        SetLogId("");
        WakeWaiters();
        after();
      });
}

void Lifecycle::OnPowerEvent(uint64_t machine_id, PowerEvent event) {
  Enqueue({.operation = Operation::kPowerEvent, .power_event = event, .machine_id = machine_id});
}

void Lifecycle::BeginPowerEvent(const Queued& queued) {
  if (machine_ == nullptr || queued.machine_id != machine_id_) return Finish();
  const PowerEvent event = queued.power_event;
  const bool restart = ActionFor(power_actions_, event) == PowerAction::kRestart;
  const bool was_running = state_ == State::kRunning;
  // A guest may do this as often as it likes.
  power_log_.Log(
      LogLevel::kInfo, "vm",
      absl::StrCat("the guest's ", HaltReason(event), restart ? " restarts" : " halts", " the VM"));
  auto work = [machine = machine_.get(), restart, was_running]() -> absl::Status {
    RETURN_IF_ERROR(machine->Pause());
    if (!restart) return absl::OkStatus();
    RETURN_IF_ERROR(machine->Restart());
    return was_running ? machine->Resume() : absl::OkStatus();
  };
  Work(std::move(work), [this, event, restart](const absl::Status& status) {
    if (!status.ok()) {
      LogError("vm", absl::StrCat("the VM can't go on: ", std::string(status.message())));
    }
    if (!restart || !status.ok()) {
      Halt(event);
    } else {
      ++restarts_;
    }
    Finish();
  });
}

void Lifecycle::Halt(PowerEvent event) {
  state_ = State::kHalted;
  halt_reason_ = HaltReason(event);
  changes_->EndAll(absl::FailedPreconditionError(StateText(state_)), nullptr);
  WakeWaiters();
}

uint64_t Lifecycle::Wait(Done done) {
  if (state_ == State::kNoVm) {
    done(absl::FailedPreconditionError(StateText(state_)));
    return 0;
  }
  if (state_ == State::kHalted) {
    done(absl::OkStatus());
    return 0;
  }
  const uint64_t id = next_waiter_++;
  waiters_.emplace(id, std::move(done));
  return id;
}

void Lifecycle::CancelWait(uint64_t id) { waiters_.erase(id); }

void Lifecycle::Inspect(inspect::Node& root) const {
  root.Child("vm", [this](inspect::Node& vm) {
    vm.Value("state", StateName(state_));
    if (state_ == State::kHalted) vm.Value("halt_reason", halt_reason_);
    if (machine_ == nullptr) return;
    vm.Value("log_id", log_id_);
    vm.Value("restarts", restarts_);
    vm.Value("pending_changes", changes_->pending());
    vm.Value("waiters", waiters_.size());
    vm.Child("timings", [this](inspect::Node& timings) {
      timings.Value("create_ns", create_time_.count());
      machine_->InspectStartup(timings);
    });
  });
  if (machine_ != nullptr) machine_->Inspect(root);
}

void Lifecycle::WakeWaiters() {
  const auto waiters = std::exchange(waiters_, {});
  for (const auto& [id, done] : waiters) done(absl::OkStatus());
}

}  // namespace bothy::vmservice
