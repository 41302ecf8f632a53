#include "pci/msix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "hypervisor/testing/fake_vm.h"
#include "support/endian.h"

namespace bothy::pci {
namespace {

using hypervisor::MsiMessage;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr MsiMessage kMessage{.address = 0xFEE0'1000, .data = 0x4041};

class MsixTest : public ::testing::Test {
 protected:
  void WriteWord(uint64_t offset, uint32_t value) {
    std::array<uint8_t, 4> bytes;
    StoreLe(bytes.data(), value);
    msix_.table().Write(offset, bytes);
  }
  uint32_t ReadWord(uint64_t offset) {
    std::array<uint8_t, 4> bytes{};
    msix_.table().Read(offset, bytes);
    return LoadLe<uint32_t>(bytes.data());
  }
  void SetMessage(uint16_t vector, const MsiMessage& message) {
    WriteWord(vector * kMsixEntryBytes, static_cast<uint32_t>(message.address));
    WriteWord(vector * kMsixEntryBytes + 4, static_cast<uint32_t>(message.address >> 32));
    WriteWord(vector * kMsixEntryBytes + 8, message.data);
  }
  void Mask(uint16_t vector, bool masked) {
    WriteWord(vector * kMsixEntryBytes + 12, masked ? 1 : 0);
  }
  uint64_t PendingBits(uint64_t offset) {
    std::array<uint8_t, 8> bytes{};
    msix_.pending_bits().Read(offset, bytes);
    return LoadLe<uint64_t>(bytes.data());
  }

  hypervisor::testing::FakeVm vm_;
  Msix msix_{vm_, 70};
};

TEST_F(MsixTest, SendsTheMessageOfTheVector) {
  SetMessage(3, kMessage);
  Mask(3, false);
  msix_.SetFunction(true, true);
  msix_.vector(3).Signal();
  EXPECT_THAT(vm_.TakeMessages(), ElementsAre(kMessage));
}

TEST_F(MsixTest, EntriesStartMaskedAndReadBackWhatWasWritten) {
  EXPECT_EQ(ReadWord(69 * kMsixEntryBytes + 12), 1U);
  SetMessage(69, {.address = 0x1'FEE0'1003, .data = 7});
  WriteWord(69 * kMsixEntryBytes + 12, 0xFFFF'FFFE);
  EXPECT_EQ(ReadWord(69 * kMsixEntryBytes), 0xFEE0'1000U) << "the two low bits are zero";
  EXPECT_EQ(ReadWord(69 * kMsixEntryBytes + 4), 1U);
  EXPECT_EQ(ReadWord(69 * kMsixEntryBytes + 8), 7U);
  EXPECT_EQ(ReadWord(69 * kMsixEntryBytes + 12), 0U) << "only the mask bit is there";
}

TEST_F(MsixTest, QuadWordsAreTwoDoubleWordsAndNarrowWritesAreIgnored) {
  std::array<uint8_t, 8> bytes;
  StoreLe<uint64_t>(bytes.data(), 0x0000'0000'FEE0'2000);
  msix_.table().Write(16, bytes);
  EXPECT_EQ(ReadWord(16), 0xFEE0'2000U);
  msix_.table().Write(16, std::span<const uint8_t>(bytes).first(2));
  msix_.table().Write(18, std::span<const uint8_t>(bytes).first(4));
  EXPECT_EQ(ReadWord(16), 0xFEE0'2000U);
  EXPECT_EQ(ReadWord(20), 0U);
}

TEST_F(MsixTest, SignalsAreLostWhileDisabled) {
  SetMessage(0, kMessage);
  Mask(0, false);
  msix_.vector(0).Signal();
  EXPECT_EQ(PendingBits(0), 0U);
  msix_.SetFunction(true, true);
  EXPECT_THAT(vm_.TakeMessages(), IsEmpty());
}

TEST_F(MsixTest, AMaskedVectorIsPendingAndSendsOnceWhenTheMaskGoes) {
  SetMessage(65, kMessage);
  msix_.SetFunction(true, true);
  msix_.vector(65).Signal();
  msix_.vector(65).Signal();
  EXPECT_THAT(vm_.TakeMessages(), IsEmpty());
  EXPECT_EQ(PendingBits(0), 0U);
  EXPECT_EQ(PendingBits(8), 2U);
  Mask(65, false);
  EXPECT_THAT(vm_.TakeMessages(), ElementsAre(kMessage));
  EXPECT_EQ(PendingBits(8), 0U);
}

TEST_F(MsixTest, FunctionMaskAndBusMasterHoldEveryVectorBack) {
  for (const uint16_t vector : {uint16_t{0}, uint16_t{1}}) {
    SetMessage(vector, {.address = 0xFEE0'0000, .data = vector});
    Mask(vector, false);
  }
  msix_.SetFunction(true, false);
  msix_.vector(0).Signal();
  msix_.vector(1).Signal();
  EXPECT_EQ(PendingBits(0), 3U);
  Mask(1, true);
  msix_.SetFunction(true, true);
  EXPECT_THAT(vm_.TakeMessages(), ElementsAre(MsiMessage{.address = 0xFEE0'0000, .data = 0}));
  EXPECT_EQ(PendingBits(0), 2U);
}

TEST_F(MsixTest, AMessageChangedUnderTheMaskIsTheOneThatIsSent) {
  msix_.SetFunction(true, true);
  SetMessage(0, kMessage);
  Mask(0, false);
  Mask(0, true);
  msix_.vector(0).Signal();
  const MsiMessage moved{.address = 0xFEE0'2000, .data = 0x51};
  SetMessage(0, moved);
  Mask(0, false);
  EXPECT_THAT(vm_.TakeMessages(), ElementsAre(moved));
}

TEST_F(MsixTest, ResetForgetsMessagesMasksAndWhatWasPending) {
  SetMessage(0, kMessage);
  msix_.SetFunction(true, true);
  msix_.vector(0).Signal();
  msix_.Reset();
  EXPECT_EQ(PendingBits(0), 0U);
  EXPECT_EQ(ReadWord(0), 0U);
  EXPECT_EQ(ReadWord(12), 1U);
  Mask(0, false);
  msix_.SetFunction(true, true);
  EXPECT_THAT(vm_.TakeMessages(), IsEmpty());
}

// A signal beside the unmasking reaches the guest, whichever of the two comes first.
TEST_F(MsixTest, NoSignalIsLostBetweenMaskAndUnmask) {
  SetMessage(0, kMessage);
  msix_.SetFunction(true, true);
  constexpr int kRounds = 2000;
  std::atomic<int> asked{0};
  std::atomic<int> signalled{0};
  std::thread device([&] {
    for (int round = 1; round <= kRounds; ++round) {
      while (asked < round) std::this_thread::yield();
      msix_.vector(0).Signal();
      signalled = round;
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    Mask(0, true);
    asked = round;
    // Now and then before it, after it, or anywhere between.
    for (int i = 0; i < round % 64; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
    Mask(0, false);
    while (signalled < round) std::this_thread::yield();
    EXPECT_EQ(vm_.TakeMessages().size(), 1U) << round;
  }
  device.join();
}

}  // namespace
}  // namespace bothy::pci
