#include "vmservice/lifecycle.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using chipset::PowerEvent;
using machine::Machine;
using machine::MachineConfig;
using machine::PowerAction;

// What the machines of a test do and have had done to them. Machine thread and test thread.
struct FakeHost {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::vector<std::string> log;
  int alive = 0;
  bool hold_create = false;  // the factory waits until it is cleared, or for a stop
  bool creating = false;
  absl::Status create_status;
  absl::Status restart_status;
  machine::PowerObserver observer;  // of the newest machine

  void Note(const std::string& what) {
    const std::lock_guard lock(mutex);
    log.push_back(what);
    changed.notify_all();
  }
  void WaitUntilCreating() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return creating; });
  }
  void LetCreate() {
    const std::lock_guard lock(mutex);
    hold_create = false;
    changed.notify_all();
  }
  std::vector<std::string> TakeLog() {
    const std::lock_guard lock(mutex);
    return std::exchange(log, {});
  }
};

class FakeMachine final : public Machine {
 public:
  explicit FakeMachine(FakeHost& host) : host_(host) {
    const std::lock_guard lock(host_.mutex);
    ++host_.alive;
  }
  ~FakeMachine() override {
    host_.Note("free");
    const std::lock_guard lock(host_.mutex);
    --host_.alive;
  }
  absl::Status Resume() override { return Did("resume"); }
  absl::Status Pause() override { return Did("pause"); }
  absl::Status Restart() override {
    host_.Note("restart");
    return host_.restart_status;
  }
  machine::MachineStats Stats() const override { return {}; }
  void AskGuestMemory(std::function<void()> done) override { done(); }
  void ModifyScsiDisk(machine::Change /*change*/, machine::ScsiDiskConfig /*disk*/,
                      std::stop_token /*stop*/, machine::ChangeDone done) override {
    done(absl::OkStatus());
  }
  void ModifyPmemDisk(machine::Change /*change*/, machine::PmemDiskConfig /*disk*/,
                      std::stop_token /*stop*/, machine::ChangeDone done) override {
    done(absl::OkStatus());
  }
  void ModifySocket(machine::Change /*change*/, machine::SocketConfig /*socket*/,
                    machine::ChangeDone done) override {
    done(absl::OkStatus());
  }
  void ModifyNic(machine::Change /*change*/, machine::NicConfig /*nic*/, std::stop_token /*stop*/,
                 machine::ChangeDone done) override {
    done(absl::OkStatus());
  }
  void Inspect(inspect::Node& /*root*/) const override {}
  void InspectStartup(inspect::Node& /*timings*/) const override {}

 private:
  absl::Status Did(const char* what) {
    host_.Note(what);
    return absl::OkStatus();
  }
  FakeHost& host_;
};

class LifecycleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    control_ = std::make_unique<LoopThread>("control");
    OnControl([this] {
      lifecycle_ = std::make_unique<Lifecycle>(
          control_->loop(),
          [this](const MachineConfig&, machine::PowerObserver observer,
                 const std::stop_token& stop) -> absl::StatusOr<std::unique_ptr<Machine>> {
            {
              std::unique_lock lock(host_.mutex);
              host_.creating = true;
              host_.changed.notify_all();
              const bool go_on =
                  host_.changed.wait(lock, stop, [this] { return !host_.hold_create; });
              host_.creating = false;
              if (!go_on) return absl::CancelledError("given up");
              host_.observer = std::move(observer);
            }
            if (!host_.create_status.ok()) return host_.create_status;
            return std::make_unique<FakeMachine>(host_);
          });
    });
  }
  void TearDown() override {
    OnControl([this] { lifecycle_.reset(); });
    EXPECT_EQ(host_.alive, 0);
    control_.reset();
  }

  void OnControl(const std::function<void()>& task) { control_->loop().PostAndWait(task); }

  // A call's answer, awaited on the test thread.
  struct Answer {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<absl::Status> status;
    std::atomic<bool> abandoned{false};

    absl::StatusCode Code() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return status.has_value(); });
      return status->code();
    }
    bool Answered() {
      const std::lock_guard lock(mutex);
      return status.has_value();
    }
  };
  using AnswerPtr = std::shared_ptr<Answer>;

  static Lifecycle::Done Answering(const AnswerPtr& answer) {
    return [answer](const absl::Status& status) {
      const std::lock_guard lock(answer->mutex);
      EXPECT_FALSE(answer->status.has_value()) << "answered twice";
      answer->status = status;
      answer->changed.notify_all();
    };
  }
  AnswerPtr Start(const std::function<void(Lifecycle::Call)>& start) {
    auto answer = std::make_shared<Answer>();
    OnControl([&] {
      start(
          {.abandoned = [answer] { return answer->abandoned.load(); }, .done = Answering(answer)});
    });
    return answer;
  }
  AnswerPtr Create(machine::PowerActions power = {}) {
    return Start([&](Lifecycle::Call call) {
      MachineConfig config;
      config.power = power;
      lifecycle_->Create(config, "id", "", std::move(call));
    });
  }
  AnswerPtr Resume() {
    return Start([this](Lifecycle::Call call) { lifecycle_->Resume(std::move(call)); });
  }
  AnswerPtr Pause() {
    return Start([this](Lifecycle::Call call) { lifecycle_->Pause(std::move(call)); });
  }
  AnswerPtr Teardown() {
    return Start([this](Lifecycle::Call call) { lifecycle_->Teardown(std::move(call)); });
  }
  AnswerPtr Wait() {
    auto answer = std::make_shared<Answer>();
    OnControl([&] { lifecycle_->Wait(Answering(answer)); });
    return answer;
  }
  State Now() {
    State state{};
    OnControl([&] { state = lifecycle_->state(); });
    return state;
  }
  std::string HaltReason() {
    std::string reason;
    OnControl([&] { reason = lifecycle_->halt_reason(); });
    return reason;
  }
  void BringTo(State state) {
    if (state == State::kNoVm) return;
    ASSERT_EQ(Create()->Code(), StatusCode::kOk);
    if (state == State::kPaused) return;
    ASSERT_EQ(Resume()->Code(), StatusCode::kOk);
    if (state == State::kRunning) return;
    const AnswerPtr halted = Wait();
    host_.observer(PowerEvent::kPowerOff);
    ASSERT_EQ(halted->Code(), StatusCode::kOk);
  }

  FakeHost host_;
  std::unique_ptr<LoopThread> control_;
  std::unique_ptr<Lifecycle> lifecycle_;
};

constexpr State kStates[] = {State::kNoVm, State::kPaused, State::kRunning, State::kHalted};

// contract.md, "Lifecycle": one test a column, all rows.
class LifecycleTableTest : public LifecycleTest, public ::testing::WithParamInterface<size_t> {
 protected:
  State state() const { return kStates[GetParam()]; }
};
INSTANTIATE_TEST_SUITE_P(EveryState, LifecycleTableTest, ::testing::Range(size_t{0}, size_t{4}));

TEST_P(LifecycleTableTest, Create) {
  BringTo(state());
  const StatusCode expected[] = {StatusCode::kOk, StatusCode::kAlreadyExists,
                                 StatusCode::kAlreadyExists, StatusCode::kAlreadyExists};
  EXPECT_EQ(Create()->Code(), expected[GetParam()]);
  EXPECT_EQ(Now(), state() == State::kNoVm ? State::kPaused : state());
}

TEST_P(LifecycleTableTest, Resume) {
  BringTo(state());
  const StatusCode expected[] = {StatusCode::kFailedPrecondition, StatusCode::kOk, StatusCode::kOk,
                                 StatusCode::kFailedPrecondition};
  EXPECT_EQ(Resume()->Code(), expected[GetParam()]);
  EXPECT_EQ(Now(), state() == State::kPaused ? State::kRunning : state());
}

TEST_P(LifecycleTableTest, Pause) {
  BringTo(state());
  const StatusCode expected[] = {StatusCode::kFailedPrecondition, StatusCode::kOk, StatusCode::kOk,
                                 StatusCode::kFailedPrecondition};
  EXPECT_EQ(Pause()->Code(), expected[GetParam()]);
  EXPECT_EQ(Now(), state() == State::kRunning ? State::kPaused : state());
}

TEST_P(LifecycleTableTest, Teardown) {
  BringTo(state());
  EXPECT_EQ(Teardown()->Code(), StatusCode::kOk);
  EXPECT_EQ(Now(), State::kNoVm);
  EXPECT_EQ(Create()->Code(), StatusCode::kOk);
}

TEST_P(LifecycleTableTest, Wait) {
  BringTo(state());
  const AnswerPtr wait = Wait();
  if (state() == State::kNoVm) {
    EXPECT_EQ(wait->Code(), StatusCode::kFailedPrecondition);
    return;
  }
  if (state() == State::kHalted) {
    EXPECT_EQ(wait->Code(), StatusCode::kOk);
    return;
  }
  EXPECT_FALSE(wait->Answered());
  EXPECT_EQ(Teardown()->Code(), StatusCode::kOk);
  EXPECT_EQ(wait->Code(), StatusCode::kOk);
}

TEST_F(LifecycleTest, ManyWaitersAreAllToldOfAHalt) {
  BringTo(State::kRunning);
  std::vector<AnswerPtr> waiters;
  for (int i = 0; i < 50; ++i) waiters.push_back(Wait());
  host_.observer(PowerEvent::kTripleFault);
  for (const AnswerPtr& waiter : waiters) EXPECT_EQ(waiter->Code(), StatusCode::kOk);
  EXPECT_EQ(HaltReason(), "triple-fault");
}

TEST_F(LifecycleTest, CancelledWaitIsNotAnswered) {
  BringTo(State::kPaused);
  auto answer = std::make_shared<Answer>();
  OnControl([&] { lifecycle_->CancelWait(lifecycle_->Wait(Answering(answer))); });
  EXPECT_EQ(Teardown()->Code(), StatusCode::kOk);
  EXPECT_FALSE(answer->Answered());
}

struct HaltCase {
  PowerEvent event;
  const char* reason;
};
class HaltReasonTest : public LifecycleTest, public ::testing::WithParamInterface<HaltCase> {};
INSTANTIATE_TEST_SUITE_P(EveryEvent, HaltReasonTest,
                         ::testing::Values(HaltCase{PowerEvent::kPowerOff, "power-off"},
                                           HaltCase{PowerEvent::kReset, "reset"},
                                           HaltCase{PowerEvent::kTripleFault, "triple-fault"},
                                           HaltCase{PowerEvent::kEmulationFailure,
                                                    "emulation-failure"}));

TEST_P(HaltReasonTest, IsToldWhileHaltedAndGoneAfterTeardown) {
  BringTo(State::kRunning);
  EXPECT_EQ(HaltReason(), "");
  const AnswerPtr wait = Wait();
  host_.observer(GetParam().event);
  EXPECT_EQ(wait->Code(), StatusCode::kOk);
  EXPECT_EQ(Now(), State::kHalted);
  EXPECT_EQ(HaltReason(), GetParam().reason);
  EXPECT_EQ(Teardown()->Code(), StatusCode::kOk);
  EXPECT_EQ(HaltReason(), "");
}

TEST_F(LifecycleTest, RestartActionRestartsAndKeepsWaitersWaiting) {
  ASSERT_EQ(Create({.reset = PowerAction::kRestart})->Code(), StatusCode::kOk);
  ASSERT_EQ(Resume()->Code(), StatusCode::kOk);
  const AnswerPtr wait = Wait();
  host_.TakeLog();
  host_.observer(PowerEvent::kReset);
  ASSERT_EQ(Pause()->Code(), StatusCode::kOk);  // queued behind the restart
  EXPECT_EQ(host_.TakeLog(), (std::vector<std::string>{"pause", "restart", "resume", "pause"}));
  EXPECT_FALSE(wait->Answered());
  EXPECT_EQ(Now(), State::kPaused);
}

TEST_F(LifecycleTest, RestartThatFailsHalts) {
  ASSERT_EQ(Create({.reset = PowerAction::kRestart})->Code(), StatusCode::kOk);
  ASSERT_EQ(Resume()->Code(), StatusCode::kOk);
  host_.restart_status = absl::NotFoundError("the kernel is gone");
  const AnswerPtr wait = Wait();
  host_.observer(PowerEvent::kReset);
  EXPECT_EQ(wait->Code(), StatusCode::kOk);
  EXPECT_EQ(HaltReason(), "reset");
}

TEST_F(LifecycleTest, EventOfAMachineThatIsGoneIsForgotten) {
  BringTo(State::kRunning);
  const machine::PowerObserver old = host_.observer;
  ASSERT_EQ(Teardown()->Code(), StatusCode::kOk);
  ASSERT_EQ(Create()->Code(), StatusCode::kOk);
  old(PowerEvent::kReset);
  EXPECT_EQ(Now(), State::kPaused);
}

TEST_F(LifecycleTest, FailedCreateLeavesNothingAndTheNextOneWorks) {
  host_.create_status = absl::NotFoundError("no such kernel");
  EXPECT_EQ(Create()->Code(), StatusCode::kNotFound);
  EXPECT_EQ(Now(), State::kNoVm);
  EXPECT_EQ(host_.alive, 0);
  host_.create_status = absl::OkStatus();
  EXPECT_EQ(Create()->Code(), StatusCode::kOk);
}

TEST_F(LifecycleTest, OtherCallsAreAnsweredDuringASlowCreate) {
  host_.hold_create = true;
  const AnswerPtr create = Create();
  host_.WaitUntilCreating();
  EXPECT_EQ(Wait()->Code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Now(), State::kNoVm);
  EXPECT_FALSE(create->Answered());
  host_.LetCreate();
  EXPECT_EQ(create->Code(), StatusCode::kOk);
}

TEST_F(LifecycleTest, CreateWhoseCallerLeftIsUndone) {
  host_.hold_create = true;
  const AnswerPtr create = Create();
  host_.WaitUntilCreating();
  create->abandoned = true;
  const AnswerPtr next = Create();  // waits for the first, then finds no VM
  host_.LetCreate();
  EXPECT_EQ(create->Code(), StatusCode::kCancelled);
  EXPECT_EQ(next->Code(), StatusCode::kOk);
  EXPECT_EQ(host_.alive, 1);
}

TEST_F(LifecycleTest, AStoppedCreationIsGivenUp) {
  host_.hold_create = true;
  std::stop_source stop;
  const AnswerPtr create = Start([&](Lifecycle::Call call) {
    stop = lifecycle_->Create(MachineConfig(), "id", "", std::move(call));
  });
  host_.WaitUntilCreating();
  stop.request_stop();
  EXPECT_EQ(create->Code(), StatusCode::kCancelled);
  EXPECT_EQ(Now(), State::kNoVm);
  host_.LetCreate();
  EXPECT_EQ(Create()->Code(), StatusCode::kOk);
}

TEST_F(LifecycleTest, AnEndingServerCreatesNothingAnyMore) {
  host_.hold_create = true;
  const AnswerPtr create = Create();
  host_.WaitUntilCreating();
  const AnswerPtr queued = Create();
  OnControl([this] { lifecycle_->EndCreating(); });
  EXPECT_EQ(create->Code(), StatusCode::kCancelled);
  EXPECT_EQ(queued->Code(), StatusCode::kCancelled);
  EXPECT_EQ(Create()->Code(), StatusCode::kCancelled);
  EXPECT_EQ(Teardown()->Code(), StatusCode::kOk);
}

TEST_F(LifecycleTest, DestructionDoesNotWaitForACreation) {
  host_.hold_create = true;
  const AnswerPtr create = Create();
  host_.WaitUntilCreating();
  OnControl([this] { lifecycle_.reset(); });
  EXPECT_EQ(host_.alive, 0);
}

TEST_F(LifecycleTest, QueuedCallWhoseCallerLeftIsNotDone) {
  host_.hold_create = true;
  const AnswerPtr create = Create();
  const AnswerPtr resume = Resume();
  resume->abandoned = true;
  host_.LetCreate();
  EXPECT_EQ(resume->Code(), StatusCode::kCancelled);
  EXPECT_EQ(Now(), State::kPaused);
}

TEST_F(LifecycleTest, DestructionFreesTheMachineAndAnswersWhatIsQueued) {
  BringTo(State::kRunning);
  OnControl([this] { lifecycle_.reset(); });
  EXPECT_EQ(host_.alive, 0);
}

}  // namespace
}  // namespace bothy::vmservice
