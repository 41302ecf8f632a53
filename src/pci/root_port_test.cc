#include "pci/root_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

#include "hypervisor/testing/fake_vm.h"
#include "pci/root_complex.h"
#include "support/endian.h"

namespace bothy::pci {
namespace {

using memory::kMiB;

// Registers as a driver finds them: the Express capability is the first.
constexpr uint16_t kLinkStatus = 0x50;
constexpr uint16_t kSlotCapabilities = 0x54;
constexpr uint16_t kSlot = 0x58;  // control, status
constexpr uint16_t kMsi = 0x80;

constexpr uint32_t kButton = 1U << 16;
constexpr uint32_t kPresenceChanged = 1U << 19;
constexpr uint32_t kPresent = 1U << 22;
constexpr uint32_t kLinkChanged = 1U << 24;
constexpr uint32_t kEvents = kButton | kPresenceChanged | kLinkChanged;
constexpr uint32_t kLinkActive = 1U << 29;
constexpr uint32_t kOn = 1U << 8;
constexpr uint32_t kBlink = 2U << 8;
constexpr uint32_t kOff = 3U << 8;
constexpr uint32_t kIndicator = 3U << 8;

class Card final : public Function {
 public:
  uint32_t ReadConfig(uint16_t) override { return 0x1041'1AF4; }
  void WriteConfig(uint16_t, uint32_t, uint32_t) override {}
  void Reset() override { ++resets; }
  void BusReset() override { ++bus_resets; }
  int resets = 0;
  int bus_resets = 0;
};

class RootPortTest : public ::testing::Test {
 protected:
  static constexpr RootPortOptions kOptions{.slot = 5,
                                            .bus = 3,
                                            .memory_window = {0xC000'0000, 2 * kMiB},
                                            .prefetchable_window = {0x12'0000'0000, 16 * kMiB}};
  RootPortTest() { CHECK_OK(complex_.AttachPort({30, 0}, port_)); }

  uint32_t Read(uint16_t offset) { return port_.ReadConfig(offset); }
  void Write(uint16_t offset, uint32_t value, uint32_t enabled = 0xFFFF'FFFF) {
    port_.WriteConfig(offset, value & enabled, enabled);
  }
  // As Linux's pciehp starts: forgets old events, then listens.
  void StartDriver() {
    Write(kCommandRegister, kCommandBusMaster, 0xFFFF);
    Write(kMsi + 4, 0xFEE0'0000);
    Write(kMsi + 12, 0x41);
    Write(kMsi, 0x0001'0000, 0xFFFF'0000);
    Write(kSlot, kEvents, 0xFFFF'0000);
    Write(kSlot, (Read(kSlot) & kIndicator) | 0x1021, 0xFFFF);
  }
  void SetIndicator(uint32_t indicator) {
    Write(kSlot, (Read(kSlot) & 0x1021) | indicator, 0xFFFF);
  }
  // The events since the last call, as an interrupt handler takes them.
  uint32_t TakeEvents() {
    const uint32_t events = Read(kSlot) & kEvents;
    Write(kSlot, events, 0xFFFF'0000);
    return events;
  }
  uint32_t Interrupts() { return static_cast<uint32_t>(vm_.TakeMessages().size()); }
  // The guest enumerates what is behind the port.
  uint32_t LookBehind(uint8_t bus = 3, uint8_t device = 0) {
    std::array<uint8_t, 4> bytes{};
    complex_.ecam().Read(uint64_t{bus} << 20 | uint64_t{device} << 15, bytes);
    return LoadLe<uint32_t>(bytes.data());
  }
  absl::Status Remove() {
    return port_.RequestRemoval([this](const absl::Status& status) {
      ASSERT_FALSE(outcome_.has_value());
      outcome_ = status;
    });
  }
  // Plugged in and driven.
  void PlugAndStart() {
    ASSERT_TRUE(port_.Plug(card_).ok());
    StartDriver();
    EXPECT_EQ(LookBehind(), 0x1041'1AF4U);
    SetIndicator(kOn);
    TakeEvents();
    Interrupts();
  }

  hypervisor::testing::FakeVm vm_;
  Card card_;
  RootPort port_{kOptions, vm_};
  RootComplex complex_;
  std::optional<absl::Status> outcome_;
};

TEST_F(RootPortTest, IsABridgeWithTheBusAndWindowsItWasGiven) {
  EXPECT_EQ(Read(kClassRegister) >> 16, 0x0604U);
  EXPECT_EQ(Read(kHeaderRegister) >> 16 & 0xFF, 1U);
  EXPECT_EQ(Read(0x18), 0x0003'0300U);
  EXPECT_EQ(Read(0x1C), 0U) << "no I/O window";
  EXPECT_EQ(Read(0x20), 0xC010'C000U);
  EXPECT_EQ(Read(0x24), 0x00F1'0001U);
  EXPECT_EQ(Read(0x28), 0x12U);
  EXPECT_EQ(Read(0x2C), 0x12U);
  EXPECT_EQ(Read(0x40) >> 20 & 0xF, 4U) << "a root port";
  EXPECT_EQ(Read(kSlotCapabilities), 5U << 19 | 1U << 18 | 0x51U);
}

TEST_F(RootPortTest, WindowsThatArentThereAreClosed) {
  RootPort port({.slot = 1, .bus = 1}, vm_);
  EXPECT_EQ(port.ReadConfig(0x20), 0x0000'FFF0U);
  EXPECT_EQ(port.ReadConfig(0x24), 0x0001'FFF1U);
}

TEST_F(RootPortTest, TheBusBehindIsReachedByTheNumberTheGuestGaveIt) {
  ASSERT_TRUE(port_.Plug(card_).ok());
  EXPECT_EQ(LookBehind(3), 0x1041'1AF4U);
  EXPECT_EQ(LookBehind(3, 1), kAllOnes);
  EXPECT_EQ(LookBehind(4), kAllOnes);
  Write(0x18, 0x0009'0900);
  EXPECT_EQ(LookBehind(3), kAllOnes);
  EXPECT_EQ(LookBehind(9), 0x1041'1AF4U);
  Write(0x18, 0);
  EXPECT_EQ(LookBehind(0), kAllOnes) << "bus 0 stays bus 0";
  complex_.Reset();
  EXPECT_EQ(LookBehind(3), 0x1041'1AF4U);
}

TEST_F(RootPortTest, WhatIsThereAtPowerOnIsShownAsOn) {
  ASSERT_TRUE(port_.Plug(card_).ok());
  EXPECT_EQ(port_.Plug(card_).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Read(kSlot) & (kPresent | kIndicator), kPresent | kOn);
  EXPECT_EQ(Read(kLinkStatus) >> 16, 0x2011U);
  port_.Reset();
  EXPECT_EQ(Read(kSlot), kPresent | kOn);
  EXPECT_EQ(Read(kLinkStatus) >> 16, 0x2011U);
  EXPECT_EQ(card_.resets, 1);
}

TEST_F(RootPortTest, AHotPlugChangesPresenceAndLinkAndInterruptsOnce) {
  StartDriver();
  ASSERT_TRUE(port_.Plug(card_).ok());
  EXPECT_EQ(Interrupts(), 1U);
  EXPECT_EQ(Read(kSlot) & kIndicator, kOff) << "that is the driver's to light";
  EXPECT_EQ(Read(kLinkStatus) & kLinkActive, kLinkActive);
  EXPECT_EQ(TakeEvents(), kPresenceChanged | kLinkChanged);
  EXPECT_EQ(Interrupts(), 0U);
}

TEST_F(RootPortTest, AnOrderlyRemoval) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(Interrupts(), 1U);
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kBlink);
  EXPECT_FALSE(outcome_.has_value());
  EXPECT_TRUE(port_.occupied());
  EXPECT_EQ(LookBehind(), 0x1041'1AF4U);
  SetIndicator(kOff);
  ASSERT_TRUE(outcome_.has_value());
  EXPECT_TRUE(outcome_->ok());
  EXPECT_FALSE(port_.occupied());
  EXPECT_EQ(card_.bus_resets, 1);
  EXPECT_EQ(LookBehind(), kAllOnes);
  EXPECT_EQ(Read(kSlot) & kPresent, 0U);
  EXPECT_EQ(Read(kLinkStatus) & kLinkActive, 0U);
  EXPECT_EQ(Interrupts(), 1U) << "the link is down";
}

TEST_F(RootPortTest, AddedAndRemovedManyTimes) {
  StartDriver();
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(port_.Plug(card_).ok());
    ASSERT_EQ(Interrupts(), 1U);
    ASSERT_NE(TakeEvents() & kLinkChanged, 0U);
    SetIndicator(kBlink);
    ASSERT_EQ(LookBehind(), 0x1041'1AF4U);
    SetIndicator(kOn);
    outcome_.reset();
    ASSERT_TRUE(Remove().ok());
    ASSERT_EQ(Interrupts(), 1U);
    ASSERT_EQ(TakeEvents(), kButton);
    SetIndicator(kBlink);
    SetIndicator(kOff);
    ASSERT_TRUE(outcome_.has_value() && outcome_->ok());
    ASSERT_EQ(Interrupts(), 1U);
    TakeEvents();
  }
}

TEST_F(RootPortTest, WhatTheGuestNeverLookedAtLeavesAtOnce) {
  ASSERT_TRUE(port_.Plug(card_).ok());
  ASSERT_TRUE(Remove().ok());
  ASSERT_TRUE(outcome_.has_value() && outcome_->ok());
  EXPECT_FALSE(port_.occupied());
  EXPECT_EQ(Remove().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RootPortTest, WhatTheGuestLetGoOfByItselfLeavesAtOnce) {
  PlugAndStart();
  SetIndicator(kOff);
  EXPECT_TRUE(port_.occupied());
  ASSERT_TRUE(Remove().ok());
  ASSERT_TRUE(outcome_.has_value() && outcome_->ok());
}

TEST_F(RootPortTest, ADriverThatStartsDuringARemovalHearsOfIt) {
  ASSERT_TRUE(port_.Plug(card_).ok());
  LookBehind();
  ASSERT_TRUE(Remove().ok());
  EXPECT_FALSE(outcome_.has_value());
  StartDriver();
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kBlink);
  SetIndicator(kOff);
  EXPECT_TRUE(outcome_.has_value() && outcome_->ok());
}

TEST_F(RootPortTest, OneRemovalAtATime) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(Remove().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(outcome_.has_value());
}

TEST_F(RootPortTest, GivingUpBeforeTheGuestHasLookedTakesThePressBack) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  EXPECT_TRUE(port_.CancelRemoval(absl::DeadlineExceededError("late")));
  EXPECT_EQ(outcome_->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Read(kSlot) & kEvents, 0U);
  EXPECT_TRUE(port_.occupied());
  EXPECT_FALSE(port_.CancelRemoval(absl::CancelledError("")));
}

TEST_F(RootPortTest, GivingUpWhileTheGuestBlinksPressesAgain) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  TakeEvents();
  SetIndicator(kBlink);
  EXPECT_TRUE(port_.CancelRemoval(absl::CancelledError("")));
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kOn);
  EXPECT_TRUE(port_.occupied());
  EXPECT_EQ(card_.bus_resets, 0);
  // And the next one goes as ever.
  outcome_.reset();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kBlink);
  SetIndicator(kOff);
  EXPECT_TRUE(outcome_->ok());
}

TEST_F(RootPortTest, AGuestThatBlinksForARemovalGivenUpIsToldToStay) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(TakeEvents(), kButton);
  EXPECT_TRUE(port_.CancelRemoval(absl::CancelledError("")));
  EXPECT_EQ(Read(kSlot) & kEvents, 0U);
  SetIndicator(kBlink);
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kOn);
  EXPECT_EQ(TakeEvents(), 0U);
  EXPECT_TRUE(port_.occupied());
}

TEST_F(RootPortTest, AGuestThatLetsGoTooLateFindsTheDeviceAnew) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  TakeEvents();
  SetIndicator(kBlink);
  EXPECT_TRUE(port_.CancelRemoval(absl::CancelledError("")));
  TakeEvents();
  SetIndicator(kOff);
  EXPECT_TRUE(port_.occupied());
  EXPECT_EQ(card_.bus_resets, 1);
  EXPECT_EQ(TakeEvents(), kPresenceChanged | kLinkChanged);
  EXPECT_NE(Read(kSlot) & kPresent, 0U);
  // Brought up again, it belongs to the guest: turned off by its own will it stays so.
  SetIndicator(kBlink);
  SetIndicator(kOn);
  SetIndicator(kOff);
  EXPECT_EQ(TakeEvents(), 0U);
  EXPECT_EQ(card_.bus_resets, 1);
}

TEST_F(RootPortTest, ARemovalRightAfterOneGivenUpStillHappens) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  TakeEvents();
  SetIndicator(kBlink);
  EXPECT_TRUE(port_.CancelRemoval(absl::CancelledError("")));
  outcome_.reset();
  // The guest hasn't seen the second press: it goes on with the first.
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(TakeEvents(), 0U);
  // It has seen it after all.
  SetIndicator(kOn);
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kBlink);
  SetIndicator(kOff);
  EXPECT_TRUE(outcome_.has_value() && outcome_->ok());
}

TEST_F(RootPortTest, ARemovalDuringThePowerUpPressesOnce) {
  StartDriver();
  ASSERT_TRUE(port_.Plug(card_).ok());
  TakeEvents();
  SetIndicator(kBlink);
  LookBehind();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(TakeEvents(), kButton);
  SetIndicator(kOn);
  EXPECT_EQ(TakeEvents(), 0U);
  SetIndicator(kBlink);
  SetIndicator(kOff);
  EXPECT_TRUE(outcome_.has_value() && outcome_->ok());
}

TEST_F(RootPortTest, AResetOfTheMachineEndsARemoval) {
  PlugAndStart();
  ASSERT_TRUE(Remove().ok());
  complex_.Reset();
  ASSERT_TRUE(outcome_.has_value() && outcome_->ok());
  EXPECT_FALSE(port_.occupied());
  EXPECT_EQ(Read(kSlot), kOff);
}

TEST_F(RootPortTest, ABusResetReachesTheCard) {
  PlugAndStart();
  Write(0x3C, 1U << 22, 0xFFFF'0000);
  Write(0x3C, 1U << 22, 0xFFFF'0000);
  EXPECT_EQ(card_.bus_resets, 1);
  Write(0x3C, 0, 0xFFFF'0000);
  Write(0x3C, 1U << 22, 0xFFFF'0000);
  EXPECT_EQ(card_.bus_resets, 2);
}

TEST_F(RootPortTest, InterruptsNeedEveryEnableAndANewEdge) {
  StartDriver();
  Write(kCommandRegister, 0, 0xFFFF);
  ASSERT_TRUE(port_.Plug(card_).ok());
  EXPECT_EQ(Interrupts(), 0U);
  Write(kCommandRegister, kCommandBusMaster, 0xFFFF);
  EXPECT_EQ(Interrupts(), 1U);
  LookBehind();
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(Interrupts(), 0U) << "the first event is still there";
  Write(kSlot, kLinkChanged, 0xFFFF'0000);
  EXPECT_EQ(Interrupts(), 0U);
  Write(kSlot, kButton, 0xFFFF'0000);
  EXPECT_EQ(Interrupts(), 0U);
  Write(kSlot, 0, 0xFFFF);
  SetIndicator(kOff);
  EXPECT_EQ(Interrupts(), 0U) << "hot-plug interrupts are off";
}

TEST_F(RootPortTest, CardsComeAndGoWhileVcpusLook) {
  StartDriver();
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread vcpu([&] {
    while (!stop) {
      const uint32_t value = LookBehind();
      if (value != kAllOnes && value != 0x1041'1AF4) ++wrong;
      SetIndicator(kBlink);
      SetIndicator(kOff);
    }
  });
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(port_.Plug(card_).ok());
    std::atomic<bool> gone{false};
    ASSERT_TRUE(port_.RequestRemoval([&](const absl::Status&) { gone = true; }).ok());
    while (!gone) std::this_thread::yield();
    ASSERT_FALSE(port_.occupied());
  }
  stop = true;
  vcpu.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace bothy::pci
