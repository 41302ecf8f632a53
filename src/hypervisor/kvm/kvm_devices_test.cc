// What KVM does for devices: messages, doorbells, memory that comes and goes. On any /dev/kvm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "hypervisor/kvm/testing/kvm_guest.h"
#include "memory/layout.h"
#include "support/endian.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {
namespace {

using memory::kPageSize;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class KvmDevicesTest : public testing::KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    auto memory = Mapping::Create(4 * kPageSize, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "memory");
    ASSERT_TRUE(memory.ok());
    memory_ = std::move(memory).value();
  }
  // Runs `code` until its ud2.
  void RunToEnd(const std::vector<uint8_t>& code) {
    Load(code);
    EXPECT_EQ(vcpu_->Run(handler_), RunResult::kTripleFault);
  }
  static uint64_t Rings(const UniqueFd& event) {
    uint64_t count = 0;
    return ::read(event.get(), &count, sizeof count) == sizeof count ? count : 0;
  }
  static void Ring(int fd) {
    const uint64_t one = 1;
    ASSERT_EQ(::write(fd, &one, sizeof one), ssize_t{sizeof one});
  }

  Mapping memory_;
};

// Prints 'R', then 'A' and 'B' for interrupts 0x41 and 0x42.
class KvmMessageTest : public KvmDevicesTest {
 protected:
  static constexpr uint64_t kToApic0 = 0xFEE0'0000;
  void Start() {
    constexpr uint32_t kGdt = 0x4000;
    constexpr uint32_t kIdt = 0x5000;
    constexpr uint32_t kHandlers[] = {0x2000, 0x2100};
    StoreLe<uint64_t>(ram_.data() + kGdt + 8, 0x00CF'9B00'0000'FFFF);   // flat code
    StoreLe<uint64_t>(ram_.data() + kGdt + 16, 0x00CF'9300'0000'FFFF);  // flat data
    for (uint32_t i = 0; i < 2; ++i) {
      StoreLe<uint64_t>(ram_.data() + kIdt + (0x41 + i) * 8, 0x0000'8E00'0008'0000 | kHandlers[i]);
      // mov al, 'A' + i; out 0xE9, al; mov dword [0xFEE000B0], 0 (end of interrupt);
      // mov esp, 0x8000; mov eax, 0x1015; jmp eax: there are KVMs whose emulator knows no iret.
      const std::vector<uint8_t> code = {0xB0, static_cast<uint8_t>('A' + i),
                                         0xE6, 0xE9,
                                         0xC7, 0x05,
                                         0xB0, 0x00,
                                         0xE0, 0xFE,
                                         0,    0,
                                         0,    0,
                                         0xBC, 0x00,
                                         0x80, 0,
                                         0,    0xB8,
                                         0x15, 0x10,
                                         0,    0,
                                         0xFF, 0xE0};
      std::copy(code.begin(), code.end(), ram_.data() + kHandlers[i]);
    }
    StoreLe<uint16_t>(ram_.data() + 0x6000, 0x7FF);
    StoreLe<uint32_t>(ram_.data() + 0x6002, kIdt);
    // mov dword [0xFEE000F0], 0x1FF (the local APIC on); lidt [0x6000]; mov al, 'R';
    // out 0xE9, al; at 0x1015: sti; for ever: hlt
    const std::vector<uint8_t> code = {0xC7, 0x05, 0xF0, 0x00, 0xE0, 0xFE, 0xFF, 0x01, 0x00,
                                       0x00, 0x0F, 0x01, 0x1D, 0x00, 0x60, 0x00, 0x00, 0xB0,
                                       'R',  0xE6, 0xE9, 0xFB, 0xF4, 0xEB, 0xFD};
    std::copy(code.begin(), code.end(), ram_.data() + 0x1000);
    EntryRegisters entry = Entry();
    entry.gdt_base = kGdt;
    entry.gdt_limit = 23;
    ASSERT_TRUE(vcpu_->SetEntry(entry).ok());
    runner_ = std::thread([this] { (void)vcpu_->Run(handler_); });
    EXPECT_EQ(Printed(1), 'R');
  }
  void TearDown() override {
    if (!runner_.joinable()) return;
    vcpu_->Kick();
    runner_.join();
  }
  uint8_t Printed(size_t count) { return handler_.WaitForWrites(count)[count - 1].second; }

  std::thread runner_;
};

TEST_F(KvmMessageTest, ASignalInterruptsTheGuestWithTheLatestMessage) {
  const std::unique_ptr<MsiRoute> route = vm_->CreateMsiRoute();
  route->Signal();  // no message yet
  Start();
  route->Update({.address = kToApic0, .data = 0x41});
  route->Signal();
  EXPECT_EQ(Printed(2), 'A');
  route->Update({.address = kToApic0, .data = 0x42});
  route->Signal();
  EXPECT_EQ(Printed(3), 'B');
  // To nobody.
  route->Update({.address = 0x1'FEE0'0000, .data = 0x41});
  route->Signal();
  route->Update({.address = 0x1000, .data = 0x41});
  route->Signal();
  route->Update({.address = kToApic0, .data = 0x42});
  route->Signal();
  EXPECT_EQ(Printed(4), 'B');
}

TEST_F(KvmMessageTest, AnEventDescriptorSendsTheMessageToo) {
  const std::unique_ptr<MsiRoute> early = vm_->CreateMsiRoute();
  const auto early_fd = early->EventFd();
  ASSERT_TRUE(early_fd.ok()) << early_fd.status();
  const std::unique_ptr<MsiRoute> late = vm_->CreateMsiRoute();
  late->Update({.address = kToApic0, .data = 0x42});
  const auto late_fd = late->EventFd();
  ASSERT_TRUE(late_fd.ok()) << late_fd.status();
  EXPECT_EQ(*late->EventFd(), *late_fd);
  Start();
  early->Update({.address = kToApic0, .data = 0x41});
  Ring(*early_fd);
  EXPECT_EQ(Printed(2), 'A');
  Ring(*late_fd);
  EXPECT_EQ(Printed(3), 'B');
  early->Update({.address = kToApic0, .data = 0x42});
  Ring(*early_fd);
  EXPECT_EQ(Printed(4), 'B');
  early->Signal();
  EXPECT_EQ(Printed(5), 'B');
}

TEST_F(KvmMessageTest, AnEventDescriptorThatIsHeldSendsLater) {
  const std::unique_ptr<MsiRoute> held = vm_->CreateMsiRoute();
  const std::unique_ptr<MsiRoute> other = vm_->CreateMsiRoute();
  held->Hold(true);  // also before there is a descriptor
  held->Update({.address = kToApic0, .data = 0x41});
  other->Update({.address = kToApic0, .data = 0x42});
  const auto held_fd = held->EventFd();
  const auto other_fd = other->EventFd();
  ASSERT_TRUE(held_fd.ok()) << held_fd.status();
  ASSERT_TRUE(other_fd.ok()) << other_fd.status();
  Start();
  Ring(*held_fd);
  Ring(*other_fd);
  EXPECT_EQ(Printed(2), 'B');
  held->Hold(false);
  EXPECT_EQ(Printed(3), 'A');
  Ring(*held_fd);
  EXPECT_EQ(Printed(4), 'A');
  held->Hold(true);
  Ring(*held_fd);
  Ring(*other_fd);
  EXPECT_EQ(Printed(5), 'B');
  held->Hold(false);
  EXPECT_EQ(Printed(6), 'A');
}

TEST_F(KvmMessageTest, EventDescriptorsAreMadeAndFreedManyTimes) {
  Start();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<MsiRoute>> routes;
    for (int i = 0; i < 20; ++i) {
      routes.push_back(vm_->CreateMsiRoute());
      ASSERT_TRUE(routes.back()->EventFd().ok());
    }
    routes[7]->Update({.address = kToApic0, .data = 0x41});
    routes[13]->Update({.address = kToApic0, .data = 0x42});
    routes.erase(routes.begin());
    routes[12].swap(routes[0]);
    routes.resize(1);
    Ring(*routes[0]->EventFd());
    ASSERT_EQ(Printed(static_cast<size_t>(round) + 2), 'B');
  }
}

TEST_F(KvmDevicesTest, ADoorbellRingsWithoutAnExit) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  // mov [0xC0003000], ax; mov [0xC0003004], eax; ud2
  const std::vector<uint8_t> code = {0x66, 0xA3, 0x00, 0x30, 0x00, 0xC0, 0xA3,
                                     0x04, 0x30, 0x00, 0xC0, 0x0F, 0x0B};
  auto doorbell = vm_->AttachDoorbell({.guest_physical = 0xC000'3000, .event_fd = event.get()});
  ASSERT_TRUE(doorbell.ok()) << doorbell.status();
  EXPECT_EQ(
      vm_->AttachDoorbell({.guest_physical = 0xC000'3000, .event_fd = event.get()}).status().code(),
      absl::StatusCode::kAlreadyExists);
  RunToEnd(code);
  EXPECT_EQ(Rings(event), 1U);
  EXPECT_THAT(handler_.mmio_writes(), ElementsAre(std::pair(uint64_t{0xC000'3004}, 0)));
  doorbell->reset();
  RunToEnd(code);
  EXPECT_EQ(Rings(event), 0U);
  EXPECT_EQ(handler_.mmio_writes().size(), 3U);
}

TEST_F(KvmDevicesTest, ADoorbellMayWantASizeAndAValue) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto doorbell = vm_->AttachDoorbell(
      {.guest_physical = 0xC000'3000, .size_bytes = 4, .match = 7, .event_fd = event.get()});
  ASSERT_TRUE(doorbell.ok()) << doorbell.status();
  // mov eax, 7; mov [0xC0003000], al; mov [0xC0003000], eax; inc eax; mov [0xC0003000], eax; ud2
  RunToEnd({0xB8, 7,    0,    0,    0,    0xA2, 0x00, 0x30, 0x00, 0xC0, 0xA3, 0x00,
            0x30, 0x00, 0xC0, 0x40, 0xA3, 0x00, 0x30, 0x00, 0xC0, 0x0F, 0x0B});
  EXPECT_EQ(Rings(event), 1U);
  EXPECT_THAT(handler_.mmio_writes(), ElementsAre(std::pair(uint64_t{0xC000'3000}, 7),
                                                  std::pair(uint64_t{0xC000'3000}, 8)));
}

// mov al, [0x201000]; out 0xE9, al; mov byte [0x202000], 0x55; ud2
const std::vector<uint8_t> kReadOnePageAndWriteTheNext = {
    0xA0, 0x00, 0x10, 0x20, 0x00, 0xE6, 0xE9, 0xC6, 0x05, 0x00, 0x20, 0x20, 0x00, 0x55, 0x0F, 0x0B};

TEST_F(KvmDevicesTest, MemoryComesAndGoes) {
  memory_.data()[kPageSize] = 0x77;
  for (int round = 0; round < 10; ++round) {
    memory_.data()[2 * kPageSize] = 0;
    auto slot = vm_->MapMemory({.guest_physical = 0x20'0000, .host = memory_.bytes()});
    ASSERT_TRUE(slot.ok()) << slot.status();
    EXPECT_EQ(
        vm_->MapMemory({.guest_physical = 0x20'3000, .host = memory_.bytes().first(kPageSize)})
            .status()
            .code(),
        absl::StatusCode::kAlreadyExists);
    EXPECT_EQ((*slot)->TakeDirtyPages().status().code(), absl::StatusCode::kFailedPrecondition);
    RunToEnd(kReadOnePageAndWriteTheNext);
    EXPECT_EQ(handler_.WaitForWrites(0).back().second, 0x77);
    EXPECT_EQ(memory_.data()[2 * kPageSize], 0x55);
  }
  EXPECT_THAT(handler_.mmio_writes(), IsEmpty());
  RunToEnd(kReadOnePageAndWriteTheNext);
  EXPECT_EQ(handler_.WaitForWrites(0).back().second, 0x33) << "nothing is there any more";
  EXPECT_EQ(handler_.mmio_writes().size(), 1U);
}

TEST_F(KvmDevicesTest, WritesToReadOnlyMemoryReachTheHandler) {
  memory_.data()[kPageSize] = 0x77;
  const auto slot =
      vm_->MapMemory({.guest_physical = 0x20'0000, .host = memory_.bytes(), .read_only = true});
  ASSERT_TRUE(slot.ok()) << slot.status();
  RunToEnd(kReadOnePageAndWriteTheNext);
  EXPECT_EQ(handler_.WaitForWrites(0).back().second, 0x77);
  EXPECT_EQ(memory_.data()[2 * kPageSize], 0);
  EXPECT_THAT(handler_.mmio_writes(), ElementsAre(std::pair(uint64_t{0x20'2000}, 0x55)));
}

TEST_F(KvmDevicesTest, DirtyPagesAreToldOnce) {
  const auto slot =
      vm_->MapMemory({.guest_physical = 0x20'0000, .host = memory_.bytes(), .log_dirty = true});
  ASSERT_TRUE(slot.ok()) << slot.status();
  EXPECT_THAT(*(*slot)->TakeDirtyPages(), ElementsAre(0U));
  for (int round = 0; round < 3; ++round) {
    RunToEnd(kReadOnePageAndWriteTheNext);
    EXPECT_THAT(*(*slot)->TakeDirtyPages(), ElementsAre(uint64_t{1} << 2));
    EXPECT_THAT(*(*slot)->TakeDirtyPages(), ElementsAre(0U));
  }
}

}  // namespace
}  // namespace bothy::hypervisor::kvm
