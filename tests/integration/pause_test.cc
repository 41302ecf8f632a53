// A paused VM stands still.
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "support/endian.h"
#include "support/mapping.h"
#include "tests/integration/process_figures.h"
#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kPmTimerHz = 3'579'545;

class PauseTest : public ServerTest {
 protected:
  static constexpr size_t kRamBytes = 2 << 20;

  void SetUp() override {
    StartServer();
    wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()));
    AddSerial(request, 0, SerialPath());
    ASSERT_THAT(vm_->Create(request), IsOk());
    serial_ = std::make_unique<SerialClient>(SerialPath());
    const UniqueFd file(OpenGuestRam(server_->pid()));
    ASSERT_TRUE(file.valid());
    auto ram = Mapping::Create(kRamBytes, PROT_READ, MAP_SHARED, file.get(), 0, "guest RAM");
    ASSERT_TRUE(ram.ok()) << ram.status();
    ram_ = *std::move(ram);
    ASSERT_THAT(vm_->Resume(), IsOk());
    serial_->ReadUntil("ready\n");
  }

  [[nodiscard]] uint64_t Counter() const {
    return LoadLe<uint64_t>(ram_.data() + micro::kCounterAddress);
  }
  // The guest has been once around its loop.
  void RoundTrip() {
    serial_->Send("!");
    EXPECT_EQ(serial_->Read(1), "!");
  }
  uint32_t PmTimer() {
    serial_->Send("t");
    return LoadLe<uint32_t>(serial_->Read(4).data());
  }

  std::unique_ptr<SerialClient> serial_;
  Mapping ram_;
};

TEST_F(PauseTest, NothingInGuestMemoryChanges) {
  for (int round = 0; round < 20; ++round) {
    RoundTrip();
    ASSERT_THAT(vm_->Pause(), IsOk());
    const std::vector<uint8_t> before(ram_.bytes().begin(), ram_.bytes().end());
    // Input that waits for the guest, and calls that the server answers meanwhile.
    serial_->Send("?");
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(vm_->Properties().ok());
    EXPECT_EQ(std::memcmp(ram_.data(), before.data(), before.size()), 0);
    const uint64_t counted = Counter();
    ASSERT_THAT(vm_->Resume(), IsOk());
    EXPECT_EQ(serial_->Read(1), "?");
    RoundTrip();
    EXPECT_GT(Counter(), counted);
  }
}

TEST_F(PauseTest, TheGuestsTimerStandsStill) {
  const Clock::time_point host_before = Clock::now();
  const uint32_t guest_before = PmTimer();
  ASSERT_THAT(vm_->Pause(), IsOk());
  const Clock::time_point paused_at = Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // the pause's length is the subject
  const Clock::time_point resumed_at = Clock::now();
  ASSERT_THAT(vm_->Resume(), IsOk());
  const uint32_t guest_ticks = PmTimer() - guest_before;
  const std::chrono::duration<double> running =
      (Clock::now() - host_before) - (resumed_at - paused_at);
  EXPECT_GT(guest_ticks, 0U);
  EXPECT_LE(guest_ticks, running.count() * kPmTimerHz + 1);
}

TEST_F(PauseTest, APausedVmCanBeTornDown) {
  ASSERT_THAT(vm_->Pause(), IsOk());
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_EQ(serial_->ReadToEnd(), "");
}

}  // namespace
}  // namespace bothy::integration
