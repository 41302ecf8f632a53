// How a stock kernel ends, and what the server makes of it; and what it notices of a pause.
#include <chrono>
#include <thread>

#include "tests/integration/lab_test.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

struct End {
  const char* name;
  const char* command_line;
  const char* halt_reason;
};

class PowerLabTest : public LabTest {};
class EndLabTest : public LabTest, public testing::WithParamInterface<End> {};

TEST_P(EndLabTest, HaltsForItsReason) {
  ASSERT_NO_FATAL_FAILURE(Boot(Guest(256, 2, GetParam().command_line)));
  SerialClient console(SerialPath());
  EXPECT_EQ(vm_->HaltReason(), GetParam().halt_reason);
  ASSERT_THAT(vm_->Teardown(), IsOk());
  // It got as far as its own end, not to one on the way.
  EXPECT_THAT(console.ReadToEnd(), HasSubstr("bothy-guest: end "));
}

INSTANTIATE_TEST_SUITE_P(Guests, EndLabTest,
                         testing::Values(End{"PowerOff", "bothy.end=poweroff", "power-off"},
                                         End{"AcpiReset", "bothy.end=reset:acpi", "reset"},
                                         End{"KeyboardReset", "bothy.end=reset:kbd", "reset"},
                                         End{"Cf9Reset", "bothy.end=reset:cf9_force", "reset"},
                                         End{"TripleFault", "bothy.end=triple-fault",
                                             "triple-fault"},
                                         // panic=-1 resets at once.
                                         End{"Panic", "bothy.end=panic", "reset"}),
                         [](const auto& end) { return std::string(end.param.name); });

TEST_F(PowerLabTest, ResetRestartsWhereThatWasAskedFor) {
  wire::CreateVMRequest request = Guest(256, 2);
  request.mutable_config()->mutable_guest_power_actions()->set_reset(wire::VMConfig::RESTART);
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  ASSERT_TRUE(agent_->Run("echo kept >/file", kAnswer).ok());
  ASSERT_THAT(agent_->End("reset", kAnswer), IsOk());
  // The machine is the same, so are its sockets; the guest is new.
  ASSERT_THAT(agent_->WaitReady(kBoot), IsOk());
  const auto file = agent_->Run("cat /file", kAnswer);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_NE(file->status, 0);
  const guest::AgentClient::Facts facts = Facts();
  EXPECT_EQ(Fact(facts, "cpus.online"), "2");
  EXPECT_EQ(Complaints(facts), "");
  PowerOff();
}

TEST_F(PowerLabTest, APauseIsNoTimeForABusyGuest) {
  // Watchdogs of a few seconds, shorter than the longest pause below.
  ASSERT_NO_FATAL_FAILURE(
      BootWithAgent(Guest(512, 2, "watchdog_thresh=2 rcupdate.rcu_cpu_stall_timeout=4")));
  const auto load = agent_->Start("for cpu in 1 2; do while :; do :; done & done; wait");
  ASSERT_TRUE(load.ok()) << load.status();

  const Clock::time_point host_before = Clock::now();
  const auto guest_before = agent_->ReadClocks(kAnswer);
  Clock::duration paused{};
  for (int round = 0; round < 100; ++round) {
    ASSERT_THAT(vm_->Pause(), IsOk());
    const Clock::time_point begin = Clock::now();
    // Time has to pass here, that is the point; once longer than the guest's watchdogs stand.
    std::this_thread::sleep_for(std::chrono::milliseconds(round == 50 ? 6000 : 20));
    paused += Clock::now() - begin;
    ASSERT_THAT(vm_->Resume(), IsOk());
  }
  const auto guest_after = agent_->ReadClocks(kAnswer);
  const Clock::duration host_elapsed = Clock::now() - host_before;
  ASSERT_TRUE(guest_before.ok() && guest_after.ok());

  // The guest's clock may run as long as its CPUs could, within what two clocks drift apart.
  const absl::Duration guest_elapsed = guest_after->monotonic - guest_before->monotonic;
  const absl::Duration running = absl::FromChrono(host_elapsed - paused);
  EXPECT_GT(guest_elapsed, absl::ZeroDuration());
  EXPECT_LE(guest_elapsed,
            running + absl::Milliseconds(5) + 0.001 * absl::FromChrono(host_elapsed));

  ASSERT_THAT(agent_->Kill(*load, SIGKILL), IsOk());
  EXPECT_TRUE(agent_->Finish(*load, kAnswer).ok());
  const guest::AgentClient::Facts facts = Facts();
  EXPECT_EQ(Complaints(facts), "");
  EXPECT_EQ(Fact(facts, "clock.source"), "kvm-clock");
  const auto works = agent_->Run("echo it still works", kAnswer);
  ASSERT_TRUE(works.ok()) << works.status();
  EXPECT_EQ(works->output, "it still works\n");
  PowerOff();
}

TEST_F(PowerLabTest, ClocksNeitherJumpNorGoBackInAPause) {
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(Guest(256, 2)));
  const auto watcher = agent_->Start("echo watching >/dev/ttyS0; clock-gap 3000");
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  SerialClient console(SerialPath());
  console.ReadUntil("watching");
  constexpr std::chrono::seconds kPause(3);
  ASSERT_THAT(vm_->Pause(), IsOk());
  std::this_thread::sleep_for(kPause);
  ASSERT_THAT(vm_->Resume(), IsOk());
  const auto seen = agent_->Finish(*watcher, kAnswer);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_THAT(seen->output, HasSubstr("backwards 0"));
  int64_t largest_ns = 0;
  ASSERT_EQ(std::sscanf(seen->output.c_str(), "largest %ld", &largest_ns), 1) << seen->output;
  EXPECT_LT(largest_ns, std::chrono::nanoseconds(kPause).count());
  PowerOff();
}

}  // namespace
}  // namespace bothy::integration
