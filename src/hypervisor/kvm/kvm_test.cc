// On any /dev/kvm: guests of a few instructions, made here.
#include "hypervisor/kvm/kvm.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "hypervisor/kvm/testing/kvm_guest.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {
namespace {

using testing::KvmTest;

// mov al, 0x41; out 0xE9, al; ud2 with no IDT: triple fault
const std::vector<uint8_t> kPrintThenFault = {0xB0, 0x41, 0xE6, 0xE9, 0x0F, 0x0B};
// inc al; out 0xE9, al; loop for ever
const std::vector<uint8_t> kCountForEver = {0xFE, 0xC0, 0xE6, 0xE9, 0xEB, 0xFA};

TEST_F(KvmTest, PortWriteReachesTheHandlerAndAFaultWithoutHandlersEndsTheRun) {
  Load(kPrintThenFault);
  EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
  EXPECT_EQ(handler_.WaitForWrites(1), (std::vector<std::pair<uint16_t, uint8_t>>{{0xE9, 0x41}}));
  EXPECT_EQ(vcpu_->exit_counts().port, 1U);
}

TEST_F(KvmTest, ReadsComeFromTheHandler) {
  // in al, 0x10; out 0xE9, al; mov al, [0xC0000000]; mov [0xC0000004], al; ud2
  Load({0xE4, 0x10, 0xE6, 0xE9, 0xA0, 0x00, 0x00, 0x00, 0xC0, 0xA2, 0x04, 0x00, 0x00, 0xC0, 0x0F,
        0x0B});
  EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
  EXPECT_EQ(handler_.WaitForWrites(1)[0].second, 0x5A);
  EXPECT_EQ(handler_.mmio_writes(),
            (std::vector<std::pair<uint64_t, uint8_t>>{{0xC000'0004, 0x33}}));
}

TEST_F(KvmTest, KickStopsAGuestThatRunsForEver) {
  Load(kCountForEver);
  for (size_t round = 1; round <= 20; ++round) {
    RunResult result{};
    std::thread runner([&] { result = vcpu_->Run(handler_); });
    handler_.WaitForWrites(handler_.WaitForWrites(0).size() + 1);
    vcpu_->Kick();
    runner.join();
    EXPECT_EQ(result, RunResult::kKicked);
  }
  // In order and none lost or repeated over all the stops.
  const auto writes = handler_.WaitForWrites(0);
  for (size_t i = 0; i < writes.size(); ++i) EXPECT_EQ(writes[i].second, (i + 1) & 0xFF);
}

TEST_F(KvmTest, KickBeforeRunMakesItReturnAtOnce) {
  Load(kCountForEver);
  vcpu_->Kick();
  EXPECT_EQ(vcpu_->Run(handler_), RunResult::kKicked);
}

// A page of a file that is gone: KVM could only have it read asynchronously, and fails at that.
TEST_F(KvmTest, AFaultThatCannotEndIsAMemoryFaultOnceItIsLookedAt) {
  constexpr uint64_t kPage = 0x1000;
  const UniqueFd file(::memfd_create("page", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), kPage), 0);
  auto page = Mapping::Create(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0, "a page");
  ASSERT_TRUE(page.ok()) << page.status();
  auto slot = vm_->MapMemory({.guest_physical = 0x20'0000, .host = page->bytes()});
  ASSERT_TRUE(slot.ok()) << slot.status();
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  // mov al, 1; out 0xE9, al; sti; nop; mov al, [0x200000]; out 0xE9, al; ud2
  Load({0xB0, 0x01, 0xE6, 0xE9, 0xFB, 0x90, 0xA0, 0x00, 0x00, 0x20, 0x00, 0xE6, 0xE9, 0x0F, 0x0B});
  std::atomic<bool> ended{false};
  RunResult result{};
  std::thread runner([&] {
    result = vcpu_->Run(handler_);
    ended = true;
  });
  handler_.WaitForWrites(1);
  while (!ended) vcpu_->ExposeEndlessFault();
  runner.join();
  EXPECT_EQ(result, RunResult::kMemoryFault);
  // The access is made again.
  ASSERT_NE(::mmap(page->data(), kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
            MAP_FAILED);
  page->data()[0] = 0x42;
  EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
  EXPECT_EQ(handler_.WaitForWrites(2)[1].second, 0x42);
}

TEST_F(KvmTest, LooksForEndlessFaultsLoseNeitherExitsNorKicks) {
  Load(kCountForEver);
  RunResult result{};
  std::thread runner([&] { result = vcpu_->Run(handler_); });
  for (size_t writes = 0; writes < 1000;) {
    vcpu_->ExposeEndlessFault();
    writes = handler_.WaitForWrites(writes + 1).size();
  }
  vcpu_->Kick();
  runner.join();
  EXPECT_EQ(result, RunResult::kKicked);
  const auto writes = handler_.WaitForWrites(0);
  for (size_t i = 0; i < writes.size(); ++i) EXPECT_EQ(writes[i].second, (i + 1) & 0xFF);
}

TEST_F(KvmTest, PowerOnStateRunsTheSameAgain) {
  ASSERT_TRUE(vm_->CapturePowerOnState().ok());
  ASSERT_TRUE(vcpu_->CapturePowerOnState().ok());
  for (size_t round = 1; round <= 3; ++round) {
    Load(kPrintThenFault);
    EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
    EXPECT_EQ(handler_.WaitForWrites(round).size(), round);
    ASSERT_TRUE(vm_->RestorePowerOnState().ok());
    const absl::Status restored = vcpu_->RestorePowerOnState();
    ASSERT_TRUE(restored.ok()) << restored;
  }
}

TEST_F(KvmTest, ClocksStopAndStartManyTimes) {
  Load(kPrintThenFault);
  EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
  ASSERT_TRUE(vm_->StartClocks().ok()) << "nothing to start";
  for (int round = 0; round < 100; ++round) {
    ASSERT_TRUE(vm_->StopClocks().ok());
    const absl::Status started = vm_->StartClocks();
    ASSERT_TRUE(started.ok()) << started;
  }
}

TEST_F(KvmTest, InterruptLinesTakeRepeatedLevels) {
  const std::unique_ptr<IrqLine> line = vm_->CreateIrqLine(4);
  for (const bool level : {true, true, false, false, true, false}) line->Set(level);
}

}  // namespace
}  // namespace bothy::hypervisor::kvm
