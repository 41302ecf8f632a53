#include "machine/processors.h"

#include <gtest/gtest.h>

#include <atomic>

namespace bothy::machine {
namespace {

using hypervisor::RunResult;

// A vCPU whose guest code is an endless loop, until it is kicked or told to fail.
class FakeVcpu final : public hypervisor::Vcpu {
 public:
  RunResult Run(hypervisor::ExitHandler&) override {
    std::unique_lock lock(mutex_);
    ++runs_;
    entered_.notify_all();
    changed_.wait(lock, [this] { return kicked_ || fatal_ || faults_ > 0; });
    if (faults_ > 0) {
      --faults_;
      return RunResult::kMemoryFault;
    }
    if (fatal_) {
      fatal_ = false;
      return RunResult::kTripleFault;
    }
    kicked_ = false;
    return RunResult::kKicked;
  }
  void Kick() override {
    const std::lock_guard lock(mutex_);
    kicked_ = true;
    changed_.notify_all();
  }
  void ExposeEndlessFault() override { ++exposures_; }
  int exposures() const { return exposures_; }
  void Fail() {
    const std::lock_guard lock(mutex_);
    fatal_ = true;
    changed_.notify_all();
  }
  // So many of its next runs meet memory that can't be accessed.
  void Fault(int times) {
    const std::lock_guard lock(mutex_);
    faults_ = times;
    changed_.notify_all();
  }
  void WaitForRuns(int runs) {
    std::unique_lock lock(mutex_);
    entered_.wait(lock, [&] { return runs_ >= runs; });
  }
  int runs() {
    const std::lock_guard lock(mutex_);
    return runs_;
  }
  hypervisor::ExitCounts exit_counts() const override { return {}; }
  absl::Status SetEntry(const hypervisor::EntryRegisters&) override { return absl::OkStatus(); }
  absl::Status CapturePowerOnState() override { return absl::OkStatus(); }
  absl::Status RestorePowerOnState() override { return absl::OkStatus(); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable entered_;
  bool kicked_ = false;
  bool fatal_ = false;
  int runs_ = 0;
  int faults_ = 0;
  std::atomic<int> exposures_{0};
};

class NoDevices final : public hypervisor::ExitHandler {
  void PortRead(uint16_t, std::span<uint8_t>) override {}
  void PortWrite(uint16_t, std::span<const uint8_t>) override {}
  void MmioRead(uint64_t, std::span<uint8_t>) override {}
  void MmioWrite(uint64_t, std::span<const uint8_t>) override {}
};

class ProcessorsTest : public ::testing::Test {
 protected:
  void Make(size_t count) {
    std::vector<std::unique_ptr<hypervisor::Vcpu>> vcpus;
    for (size_t i = 0; i < count; ++i) {
      auto vcpu = std::make_unique<FakeVcpu>();
      fakes_.push_back(vcpu.get());
      vcpus.push_back(std::move(vcpu));
    }
    const auto on_memory_fault = [this](uint64_t& recoveries_seen) {
      seen_.push_back(recoveries_seen++);
      return mends_;
    };
    const auto on_fatal = [this](RunResult result) {
      fatal_result_ = result;
      ++fatal_;
      processors_->RequestStop();
    };
    auto processors = Processors::Create(std::move(vcpus), no_devices_, on_memory_fault, on_fatal);
    ASSERT_TRUE(processors.ok());
    processors_ = std::move(processors).value();
  }

  NoDevices no_devices_;
  std::vector<FakeVcpu*> fakes_;
  std::atomic<int> fatal_{0};
  std::atomic<RunResult> fatal_result_{RunResult::kKicked};
  bool mends_ = true;
  std::vector<uint64_t> seen_;  // of one vCPU's thread
  std::unique_ptr<Processors> processors_;
};

TEST_F(ProcessorsTest, NothingRunsBeforeStart) {
  Make(3);
  processors_->Stop();
  processors_.reset();
}

TEST_F(ProcessorsTest, StartsAndStopsAllOfThemManyTimes) {
  Make(4);
  for (int round = 1; round <= 200; ++round) {
    std::vector<int> before;
    for (FakeVcpu* fake : fakes_) before.push_back(fake->runs());
    processors_->Start();
    for (size_t i = 0; i < fakes_.size(); ++i) fakes_[i]->WaitForRuns(before[i] + 1);
    processors_->Stop();
    for (size_t i = 0; i < fakes_.size(); ++i) before[i] = fakes_[i]->runs();
    processors_->Stop();  // idempotent, and nothing started meanwhile
    for (size_t i = 0; i < fakes_.size(); ++i) EXPECT_EQ(fakes_[i]->runs(), before[i]);
  }
}

TEST_F(ProcessorsTest, FatalExitIsReportedOnceAndStopsTheOthers) {
  Make(3);
  processors_->Start();
  for (FakeVcpu* fake : fakes_) fake->WaitForRuns(1);
  fakes_[1]->Fail();
  processors_->Stop();
  EXPECT_EQ(fatal_, 1);
  EXPECT_EQ(fatal_result_, RunResult::kTripleFault);
}

TEST_F(ProcessorsTest, GoesOnWhenAMemoryFaultIsMended) {
  Make(1);
  processors_->Start();
  fakes_[0]->WaitForRuns(1);
  fakes_[0]->Fault(2);
  fakes_[0]->WaitForRuns(3);
  processors_->Stop();
  EXPECT_EQ(fatal_, 0);
  EXPECT_EQ(seen_, (std::vector<uint64_t>{0, 1}));  // what it has learned is its own
}

TEST_F(ProcessorsTest, AMemoryFaultThatCannotBeMendedIsFatal) {
  mends_ = false;
  Make(1);
  processors_->Start();
  fakes_[0]->WaitForRuns(1);
  fakes_[0]->Fault(1);
  processors_->Stop();
  EXPECT_EQ(fatal_, 1);
  EXPECT_EQ(fatal_result_, RunResult::kMemoryFault);
}

TEST_F(ProcessorsTest, LooksForEndlessFaultsOfWhatRunsOnly) {
  Make(2);
  EXPECT_FALSE(processors_->ExposeEndlessFaults());
  processors_->Start();
  EXPECT_TRUE(processors_->ExposeEndlessFaults());
  processors_->Stop();
  EXPECT_FALSE(processors_->ExposeEndlessFaults());
  for (const FakeVcpu* fake : fakes_) EXPECT_EQ(fake->exposures(), 1);
}

TEST_F(ProcessorsTest, RunsAgainAfterAFatalExit) {
  Make(1);
  processors_->Start();
  fakes_[0]->Fail();
  processors_->Stop();
  const int before = fakes_[0]->runs();
  processors_->Start();
  fakes_[0]->WaitForRuns(before + 1);
  processors_->Stop();
}

TEST_F(ProcessorsTest, DestructionEndsRunningProcessors) {
  Make(2);
  processors_->Start();
  for (FakeVcpu* fake : fakes_) fake->WaitForRuns(1);
  processors_.reset();
}

}  // namespace
}  // namespace bothy::machine
