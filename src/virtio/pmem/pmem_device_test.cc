#include "virtio/pmem/pmem_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <deque>
#include <memory>
#include <vector>

#include "support/endian.h"
#include "virtio/pmem/flush_group.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;

// Flushes end when the test says so.
class HeldFlushes final : public Flushable {
 public:
  Task<absl::Status> Flush() override {
    Held held(*this);
    absl::Status status = co_await held;
    co_return status;
  }
  // Counts among what is held when hold_settling is set.
  Task<void> Settle() override {
    if (!hold_settling) co_return;
    Held held(*this);
    (void)co_await held;
  }
  bool hold_settling = false;
  void EndFirst(const absl::Status& status) {
    Held* const held = held_.front();
    held_.pop_front();
    held->status = status;
    held->handle.resume();
  }
  [[nodiscard]] size_t count() const { return held_.size(); }

 private:
  struct Held {
    explicit Held(HeldFlushes& flushes) : flushes(flushes) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
      handle = waiting;
      flushes.held_.push_back(this);
    }
    [[nodiscard]] absl::Status await_resume() { return status; }
    HeldFlushes& flushes;
    std::coroutine_handle<> handle;
    absl::Status status;
  };
  std::deque<Held*> held_;
};

class FakeTransport final : public testing::TestTransport {
 public:
  void InterruptQueue(uint16_t queue) override {
    EXPECT_EQ(queue, 0);
    ++interrupts;
  }
  void NeedsReset(const absl::Status& reason) override { broken.push_back(reason); }
  int interrupts = 0;
  std::vector<absl::Status> broken;
};

class PmemDeviceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRequest = 0x8000;
  static constexpr uint64_t kResponse = 0x9000;
  static constexpr uint16_t kQueueSize = 128;

  PmemDeviceTest() { device_.Resume(); }
  ~PmemDeviceTest() override {
    while (flushes_.count() != 0) flushes_.EndFirst(absl::OkStatus());
    device_.Reset([] {});
  }
  void Activate() {
    CHECK_OK(memory_->Zero(0x1000, DriverQueue::RingBytes(kQueueSize)));
    queue_.emplace(*memory_, 0x1000, kQueueSize);
    std::vector<std::unique_ptr<Virtqueue>> queues;
    QueueSetup setup = queue_->setup();
    setup.backing = device_.backing();
    queues.push_back(*Virtqueue::Create(*memory_, setup));
    device_.Activate(transport_, 0, std::move(queues));
  }
  // A request of `type` whose response is filled with a value that no device gives.
  void Request(uint32_t type, uint32_t request_bytes = 4, uint32_t response_bytes = 4) {
    CHECK_OK(memory_->WriteObject(kRequest, type));
    CHECK_OK(memory_->WriteObject(kResponse, uint32_t{0x55555555}));
    const std::array<DriverQueue::Buffer, 2> buffers = {
        DriverQueue::Buffer{.gpa = kRequest, .length = request_bytes},
        DriverQueue::Buffer{.gpa = kResponse, .length = response_bytes, .writable = true}};
    CHECK(queue_->Add(buffers).has_value());
    device_.OnDoorbell(0);
  }
  uint32_t Response() { return *memory_->ReadObject<uint32_t>(kResponse); }

  std::unique_ptr<memory::GuestMemory> memory_ = testing::TestRam(uint64_t{1} << 20);
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  HeldFlushes flushes_;
  FakeTransport transport_;
  PmemDevice device_{
      {.name = "pmem0", .guest_base = 0x1'4000'0000, .size_bytes = 0x20'0000}, flushes_, *loop_};
  std::optional<DriverQueue> queue_;
};

TEST_F(PmemDeviceTest, ConfigurationSaysWhereTheMemoryIs) {
  std::array<uint8_t, 24> config{};
  device_.ReadConfig(0, config);
  EXPECT_EQ(LoadLe<uint64_t>(&config[0]), 0x1'4000'0000U);
  EXPECT_EQ(LoadLe<uint64_t>(&config[8]), 0x20'0000U);
  EXPECT_EQ(LoadLe<uint64_t>(&config[16]), 0U);
  // By halves, as Linux reads it on 32 bits, and past the end.
  std::array<uint8_t, 4> half{};
  device_.ReadConfig(4, half);
  EXPECT_EQ(LoadLe<uint32_t>(half.data()), 1U);
  half.fill(0xFF);
  device_.ReadConfig(UINT64_MAX, half);
  EXPECT_EQ(LoadLe<uint32_t>(half.data()), 0U);
  EXPECT_EQ(device_.type(), 27);
  EXPECT_EQ(device_.features(), 0U);
}

TEST_F(PmemDeviceTest, FlushIsAnsweredWhenItIsDone) {
  Activate();
  Request(0);
  EXPECT_EQ(flushes_.count(), 1U);
  EXPECT_FALSE(queue_->TakeUsed().has_value());
  EXPECT_EQ(transport_.interrupts, 0);
  flushes_.EndFirst(absl::OkStatus());
  const auto used = queue_->TakeUsed();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, 4U);
  EXPECT_EQ(Response(), 0U);
  EXPECT_EQ(transport_.interrupts, 1);
}

// It would wait for itself: pages of persistent memory are there once its loop has filled them.
TEST_F(PmemDeviceTest, RequestsInMemoryOfDevicesAreNotFollowed) {
  constexpr uint64_t kBytes = 0x10000;
  constexpr uint64_t kWindow = 0x1'4000'0000;
  void* const untouchable = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(untouchable, MAP_FAILED);
  CHECK_OK(memory_->AddDeviceMemory(kWindow, {static_cast<uint8_t*>(untouchable), kBytes},
                                    memory::Access::kWrite));
  // Responses, requests, tables.
  const auto offer = [&](std::span<const DriverQueue::Buffer> buffers, bool indirect) {
    Activate();
    const size_t broken = transport_.broken.size();
    CHECK((indirect ? queue_->AddIndirect(buffers, 0x9000) : queue_->Add(buffers)).has_value());
    device_.OnDoorbell(0);
    EXPECT_EQ(transport_.broken.size(), broken + 1);
    device_.Reset([] {});
  };
  const std::array<DriverQueue::Buffer, 2> response = {
      DriverQueue::Buffer{.gpa = kRequest, .length = 4},
      DriverQueue::Buffer{.gpa = kWindow, .length = 4, .writable = true}};
  offer(response, false);
  offer(response, true);
  const std::array<DriverQueue::Buffer, 2> request = {
      DriverQueue::Buffer{.gpa = kWindow + 0x1000, .length = 4},
      DriverQueue::Buffer{.gpa = kResponse, .length = 4, .writable = true}};
  offer(request, false);
  Activate();
  queue_->RawSet(0, {.address = kWindow, .length = 32, .flags = DriverQueue::kIndirect});
  queue_->RawOffer(0);
  device_.OnDoorbell(0);
  EXPECT_EQ(transport_.broken.size(), 4U);
  // Rings.
  QueueSetup rings = queue_->setup();
  rings.backing = device_.backing();
  rings.device_gpa = kWindow;
  EXPECT_FALSE(Virtqueue::Create(*memory_, rings).ok());
  rings.backing = memory::Backing::kAny;
  EXPECT_TRUE(Virtqueue::Create(*memory_, rings).ok());
}

TEST_F(PmemDeviceTest, FailedFlushIsMinusOne) {
  Activate();
  Request(0);
  flushes_.EndFirst(absl::ResourceExhaustedError("full"));
  ASSERT_TRUE(queue_->TakeUsed().has_value());
  EXPECT_EQ(Response(), UINT32_MAX);
  EXPECT_EQ(device_.counters().requests, 1U);
  EXPECT_EQ(device_.counters().failed, 1U);
}

TEST_F(PmemDeviceTest, RequestsOfAnotherKindAreRefusedWithoutAFlush) {
  Activate();
  Request(1);
  EXPECT_EQ(Response(), UINT32_MAX);
  Request(0, 3);  // no type at all
  EXPECT_EQ(Response(), UINT32_MAX);
  EXPECT_EQ(flushes_.count(), 0U);
  EXPECT_TRUE(transport_.broken.empty());
  EXPECT_EQ(device_.counters().failed, 2U);
}

TEST_F(PmemDeviceTest, NoRoomForAResponseNeedsAReset) {
  Activate();
  Request(0, 4, 3);
  ASSERT_EQ(transport_.broken.size(), 1U);
  EXPECT_TRUE(absl::IsInvalidArgument(transport_.broken[0]));
  EXPECT_EQ(flushes_.count(), 0U);
  // Nothing is looked at until the reset.
  Request(0);
  EXPECT_EQ(flushes_.count(), 0U);
  bool reset = false;
  device_.Reset([&] { reset = true; });
  EXPECT_TRUE(reset);
  Activate();
  Request(0);
  EXPECT_EQ(flushes_.count(), 1U);
}

TEST_F(PmemDeviceTest, QuiesceWaitsForFlushesAndTakesNoMore) {
  Activate();
  Request(0);
  Request(0);
  bool quiet = false;
  device_.Quiesce([&] { quiet = true; });
  flushes_.EndFirst(absl::OkStatus());
  EXPECT_FALSE(quiet);
  flushes_.EndFirst(absl::OkStatus());
  EXPECT_TRUE(quiet);
  EXPECT_TRUE(queue_->TakeUsed().has_value());
  EXPECT_TRUE(queue_->TakeUsed().has_value());
  Request(0);
  EXPECT_EQ(flushes_.count(), 0U);
  device_.Resume();
  EXPECT_EQ(flushes_.count(), 1U);
}

TEST_F(PmemDeviceTest, QuiesceWaitsForWhatTheDiskDoesOnItsOwn) {
  Activate();
  flushes_.hold_settling = true;
  Request(0);
  bool quiet = false;
  device_.Quiesce([&] { quiet = true; });
  flushes_.EndFirst(absl::OkStatus());
  EXPECT_TRUE(queue_->TakeUsed().has_value());
  EXPECT_FALSE(quiet);
  ASSERT_EQ(flushes_.count(), 1U);
  flushes_.EndFirst(absl::OkStatus());
  EXPECT_TRUE(quiet);
}

TEST_F(PmemDeviceTest, ResetWaitsForFlushesAndForgetsTheQueue) {
  Activate();
  Request(0);
  bool reset = false;
  device_.Reset([&] { reset = true; });
  EXPECT_FALSE(reset);
  flushes_.EndFirst(absl::OkStatus());
  EXPECT_TRUE(reset);
  Request(0);
  EXPECT_EQ(flushes_.count(), 0U);
}

TEST_F(PmemDeviceTest, ADriverThatNeverStopsLetsTheLoopGoOn) {
  // Every request is answered at once, and the driver has more than a round's worth.
  Activate();
  const std::array<DriverQueue::Buffer, 1> buffer = {
      DriverQueue::Buffer{.gpa = kResponse, .length = 4, .writable = true}};
  device_.Quiesce([] {});
  CHECK(queue_->Add(buffer).has_value());
  // The same chain over and over, further than the ring is long: caught by the queue.
  for (int i = 0; i < 3 * kQueueSize; ++i) queue_->RawOffer(0);
  device_.Resume();
  EXPECT_EQ(transport_.broken.size(), 1U);
}

TEST(FlushGroup, ThoseWhoComeWhileOneRunsShareTheNext) {
  auto loop = *IoLoop::Create();
  HeldFlushes flushes;
  int settled = 0;
  FlushGroup group(
      *loop, [&] { return flushes.Flush(); },
      [&]() -> Task<void> {
        ++settled;
        co_return;
      });
  std::vector<absl::Status> ended;
  const auto join = [&] {
    Start(group.Join(), [&](const absl::Status& status) { ended.push_back(status); });
  };
  join();
  join();
  loop->RunUntil([&] { return flushes.count() == 1; });
  for (int i = 0; i < 5; ++i) join();
  EXPECT_TRUE(ended.empty());
  flushes.EndFirst(absl::OkStatus());
  EXPECT_EQ(ended.size(), 2U);
  EXPECT_EQ(settled, 1);
  // The five share one, which began after them.
  ASSERT_EQ(flushes.count(), 1U);
  flushes.EndFirst(absl::InternalError("no"));
  EXPECT_EQ(ended.size(), 7U);
  EXPECT_TRUE(absl::IsInternal(ended.back()));
  EXPECT_EQ(flushes.count(), 0U);
  EXPECT_EQ(settled, 2);
  bool idle = false;
  Start(group.Idle(), [&] { idle = true; });
  EXPECT_TRUE(idle);
}

}  // namespace
}  // namespace bothy::virtio
