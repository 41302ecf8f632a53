#include "virtio/pci/registers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <future>

#include "inspect/inspection.h"
#include "support/endian.h"
#include "virtio/testing/driver_queue.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint16_t kQueueLimit = 16;

// Hands every chain straight back. Its answers to Reset and Quiesce can be held.
class EchoDevice final : public Device {
 public:
  [[nodiscard]] uint16_t type() const override { return kDeviceTypeScsi; }
  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] uint64_t features() const override { return 2; }
  [[nodiscard]] const std::vector<uint16_t>& queue_sizes() const override { return sizes_; }
  void ReadConfig(uint64_t offset, std::span<uint8_t> data) override {
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(offset + i);
  }
  void WriteConfig(uint64_t offset, std::span<const uint8_t> data) override {
    written.emplace_back(offset, data[0]);
  }
  void ResetConfig() override { written.clear(); }
  [[nodiscard]] memory::Backing backing() const override { return backing_of_queues; }
  memory::Backing backing_of_queues = memory::Backing::kAny;
  void Activate(Transport& transport, uint64_t features,
                std::vector<std::unique_ptr<Virtqueue>> queues) override {
    transport_ = &transport;
    negotiated = features;
    queues_ = std::move(queues);
    ++activations;
    for (size_t i = 0; i < queues_.size(); ++i) OnDoorbell(static_cast<uint16_t>(i));
  }
  void OnDoorbell(uint16_t index) override {
    if (index >= queues_.size() || queues_[index] == nullptr || quiesced_) return;
    Virtqueue& queue = *queues_[index];
    Chain chain;
    while (true) {
      const absl::StatusOr<bool> popped = queue.Pop(chain);
      if (!popped.ok()) {
        transport_->NeedsReset(popped.status());
        queues_.clear();
        return;
      }
      if (!*popped) break;
      queue.Push(chain.head, 0);
    }
    if (queue.ShouldInterrupt()) transport_->InterruptQueue(index);
  }
  void Quiesce(std::function<void()> done) override {
    quiesced_ = true;
    done();
  }
  void Resume() override {
    quiesced_ = false;
    for (size_t i = 0; i < queues_.size(); ++i) OnDoorbell(static_cast<uint16_t>(i));
  }
  void Reset(std::function<void()> done) override {
    queues_.clear();
    if (hold_reset) {
      held_reset = std::move(done);
    } else {
      done();
    }
  }
  void ChangeConfig() { transport_->ConfigChanged(); }

  bool hold_reset = false;
  std::function<void()> held_reset;
  uint64_t negotiated = 0;
  int activations = 0;
  std::vector<std::pair<uint64_t, uint8_t>> written;

 private:
  std::string name_ = "echo0";
  std::vector<uint16_t> sizes_ = {kQueueLimit, 4};
  Transport* transport_ = nullptr;
  std::vector<std::unique_ptr<Virtqueue>> queues_;
  bool quiesced_ = false;
};

class RecordingSink final : public InterruptSink {
 public:
  void Signal(uint16_t vector) override {
    const std::lock_guard lock(mutex_);
    ++signals_[vector];
    changed_.notify_all();
  }
  absl::StatusOr<int> EventFd(uint16_t) override { return -1; }
  [[nodiscard]] uint16_t vector_count() const override { return 3; }
  void WaitFor(uint16_t vector, int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return signals_[vector] >= count; });
  }
  int count(uint16_t vector) {
    const std::lock_guard lock(mutex_);
    return signals_[vector];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint16_t, int> signals_;
};

class RegistersTest : public ::testing::Test {
 protected:
  RegistersTest() {
    auto registers = Registers::Create(device_, io_->loop(), *ram_, sink_);
    CHECK(registers.ok());
    registers_ = *std::move(registers);
    registers_->Start();
  }
  ~RegistersTest() override {
    registers_->Stop();
    registers_.reset();
  }
  template <typename T>
  T Get(uint64_t offset) {
    std::array<uint8_t, sizeof(T)> bytes{};
    registers_->Read(offset, bytes);
    return LoadLe<T>(bytes.data());
  }
  template <typename T>
  void Put(uint64_t offset, T value) {
    std::array<uint8_t, sizeof(T)> bytes{};
    StoreLe(bytes.data(), value);
    registers_->Write(offset, bytes);
  }
  // Everything posted to the loop so far is done.
  void Settle() {
    io_->loop().PostAndWait([] {});
  }
  uint64_t OfferedFeatures() {
    Put<uint32_t>(0x00, 0);
    const uint64_t low = Get<uint32_t>(0x04);
    Put<uint32_t>(0x00, 1);
    return low | uint64_t{Get<uint32_t>(0x04)} << 32;
  }
  void Negotiate(uint64_t features) {
    Put<uint8_t>(0x14, kStatusAcknowledge);
    Put<uint8_t>(0x14, kStatusAcknowledge | kStatusDriver);
    Put<uint32_t>(0x08, 0);
    Put<uint32_t>(0x0C, static_cast<uint32_t>(features));
    Put<uint32_t>(0x08, 1);
    Put<uint32_t>(0x0C, static_cast<uint32_t>(features >> 32));
    Put<uint8_t>(0x14, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  }
  void SetUpQueue(uint16_t index, const QueueSetup& setup, uint16_t vector) {
    Put<uint16_t>(0x16, index);
    Put<uint16_t>(0x18, setup.size);
    Put<uint16_t>(0x1A, vector);
    Put<uint32_t>(0x20, static_cast<uint32_t>(setup.descriptor_gpa));
    Put<uint32_t>(0x24, static_cast<uint32_t>(setup.descriptor_gpa >> 32));
    Put<uint64_t>(0x28, setup.driver_gpa);
    Put<uint64_t>(0x30, setup.device_gpa);
    Put<uint16_t>(0x1C, 1);
  }
  void DriverOk() {
    Put<uint8_t>(0x14, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
    Settle();
  }

  // As inspection shows it.
  uint64_t Count(std::string_view path) {
    absl::StatusOr<inspect::Value> shown = absl::UnknownError("not asked");
    (void)inspect::Inspection::Start(
        *inspect::Query::Parse(path, 0), [this](inspect::Node& node) { registers_->Inspect(node); },
        [&shown](absl::StatusOr<inspect::Value> value) { shown = std::move(value); });
    EXPECT_TRUE(shown.ok()) << shown.status();
    return shown.ok() ? std::get<uint64_t>(shown->AsVariant()) : 0;
  }

  std::unique_ptr<memory::GuestMemory> ram_ = testing::TestRam(4 * memory::kMiB);
  EchoDevice device_;
  RecordingSink sink_;
  std::unique_ptr<IoThread> io_ = *IoThread::Create("io-test", {});
  std::unique_ptr<Registers> registers_;
};

TEST_F(RegistersTest, OffersTheDevicesFeaturesAndItsOwn) {
  EXPECT_EQ(OfferedFeatures(),
            2 | kFeatureIndirectDescriptors | kFeatureEventIndex | kFeatureVersion1);
  EXPECT_EQ(Get<uint16_t>(0x12), 2);
}

TEST_F(RegistersTest, RefusesFeaturesThatWereNotOfferedAndDriversBeforeVersion1) {
  Negotiate(kFeatureVersion1 | 1);
  EXPECT_EQ(Get<uint8_t>(0x14) & kStatusFeaturesOk, 0);
  Put<uint8_t>(0x14, 0);
  Settle();
  Negotiate(2);
  EXPECT_EQ(Get<uint8_t>(0x14) & kStatusFeaturesOk, 0);
  Put<uint8_t>(0x14, 0);
  Settle();
  Negotiate(kFeatureVersion1 | 2);
  EXPECT_NE(Get<uint8_t>(0x14) & kStatusFeaturesOk, 0);
}

TEST_F(RegistersTest, ADriverSetsUpAQueueAndIsInterrupted) {
  DriverQueue driver(*ram_, 0x1000, 8);
  const std::array<DriverQueue::Buffer, 1> buffer = {{{0x10000, 8}}};
  driver.Add(buffer);
  Negotiate(kFeatureVersion1 | kFeatureIndirectDescriptors);
  SetUpQueue(0, driver.setup(), 2);
  DriverOk();
  EXPECT_EQ(device_.negotiated, kFeatureVersion1 | kFeatureIndirectDescriptors);
  sink_.WaitFor(2, 1);
  EXPECT_TRUE(driver.TakeUsed().has_value());
  driver.Add(buffer);
  Put<uint16_t>(kDoorbellOffset, 0);
  sink_.WaitFor(2, 2);
  EXPECT_TRUE(driver.TakeUsed().has_value());
  EXPECT_EQ(Count("queues/0/doorbells"), 1U);
  EXPECT_EQ(Count("queues/0/used_chains"), 2U);
  EXPECT_EQ(Count("queues/0/interrupts"), 2U);
  EXPECT_EQ(Count("queues/1/used_chains"), 0U);
}

TEST_F(RegistersTest, RegistersReadAsTheyWereWrittenAtAnyWidth) {
  Put<uint16_t>(0x16, 1);
  EXPECT_EQ(Get<uint16_t>(0x18), 4);
  Put<uint64_t>(0x20, 0x1122334455667788);
  EXPECT_EQ(Get<uint32_t>(0x24), 0x11223344U);
  EXPECT_EQ(Get<uint16_t>(0x23), 0x4455);
  EXPECT_EQ(Get<uint16_t>(0x1E), 1);
  Put<uint16_t>(0x16, 2);
  EXPECT_EQ(Get<uint16_t>(0x18), 0);
  Put<uint64_t>(0x20, 1);
  EXPECT_EQ(Get<uint64_t>(0x20), 0U);
}

TEST_F(RegistersTest, IgnoresWhatAQueueCannotBe) {
  Put<uint16_t>(0x18, 3);
  EXPECT_EQ(Get<uint16_t>(0x18), kQueueLimit);
  Put<uint16_t>(0x18, 2 * kQueueLimit);
  EXPECT_EQ(Get<uint16_t>(0x18), kQueueLimit);
  Put<uint16_t>(0x1A, 3);
  EXPECT_EQ(Get<uint16_t>(0x1A), kNoVector);
  Put<uint16_t>(0x1C, 1);
  Put<uint64_t>(0x20, 0x5000);
  EXPECT_EQ(Get<uint64_t>(0x20), 0U);
}

TEST_F(RegistersTest, AQueueThatIsNoRamNeedsAReset) {
  Negotiate(kFeatureVersion1);
  SetUpQueue(0, {.size = 8, .descriptor_gpa = 1ULL << 40, .driver_gpa = 0, .device_gpa = 0}, 0);
  Put<uint16_t>(0x10, 1);
  DriverOk();
  EXPECT_NE(Get<uint8_t>(0x14) & kStatusNeedsReset, 0);
  EXPECT_EQ(sink_.count(1), 1);
  EXPECT_EQ(device_.activations, 0);
  EXPECT_NE(registers_->broken_reason(), "");
  Put<uint8_t>(0x14, 0);
  Settle();
  EXPECT_EQ(Get<uint8_t>(0x14), 0);
  EXPECT_EQ(registers_->broken_reason(), "");
}

TEST_F(RegistersTest, AQueueInADevicesMemoryIsForDevicesThatAllowIt) {
  std::vector<uint8_t> device_memory(0x10000);
  constexpr uint64_t kDeviceMemory = uint64_t{1} << 32;
  CHECK_OK(ram_->AddDeviceMemory(kDeviceMemory, device_memory, memory::Access::kWrite));
  for (const memory::Backing backing : {memory::Backing::kAny, memory::Backing::kRam}) {
    device_.backing_of_queues = backing;
    Put<uint8_t>(0x14, 0);
    Settle();
    QueueSetup setup = DriverQueue(*ram_, 0x1000, 8).setup();
    setup.descriptor_gpa = kDeviceMemory;
    Negotiate(kFeatureVersion1);
    SetUpQueue(0, setup, 2);
    DriverOk();
    EXPECT_EQ((Get<uint8_t>(0x14) & kStatusNeedsReset) != 0, backing == memory::Backing::kRam);
  }
}

TEST_F(RegistersTest, StatusIsZeroOnlyWhenTheDeviceHasLetGo) {
  Negotiate(kFeatureVersion1);
  DriverOk();
  io_->loop().PostAndWait([this] { device_.hold_reset = true; });
  Put<uint8_t>(0x14, 0);
  Settle();
  EXPECT_NE(Get<uint8_t>(0x14), 0);
  Put<uint8_t>(0x14, kStatusAcknowledge);  // too early
  io_->loop().PostAndWait([this] {
    device_.hold_reset = false;
    device_.held_reset();
  });
  EXPECT_EQ(Get<uint8_t>(0x14), 0);
}

TEST_F(RegistersTest, ADeviceThatNeverWentIsResetAtOnce) {
  // The loop is busy: whatever waited for it would come after the driver's next steps.
  std::promise<void> go_on;
  io_->loop().Post([&] { go_on.get_future().wait(); });
  Put<uint8_t>(kDeviceConfigOffset, 1);
  Put<uint8_t>(0x14, 0);
  EXPECT_EQ(Get<uint8_t>(0x14), 0);
  EXPECT_THAT(device_.written, IsEmpty());
  Negotiate(kFeatureVersion1);
  Put<uint8_t>(kDeviceConfigOffset, 2);
  SetUpQueue(0, DriverQueue(*ram_, 0x1000, 8).setup(), 2);
  go_on.set_value();
  Settle();
  EXPECT_EQ(Get<uint8_t>(0x14), kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  EXPECT_EQ(Get<uint16_t>(0x1A), 2);
  EXPECT_THAT(device_.written, ElementsAre(std::pair<uint64_t, uint8_t>(0, 2)));
  DriverOk();
  EXPECT_EQ(device_.activations, 1);
}

TEST_F(RegistersTest, AConfigChangeHasItsVectorAndGeneration) {
  Put<uint16_t>(0x10, 1);
  Negotiate(kFeatureVersion1);
  DriverOk();
  const auto generation = Get<uint8_t>(0x15);
  io_->loop().PostAndWait([this] { device_.ChangeConfig(); });
  EXPECT_EQ(sink_.count(1), 1);
  EXPECT_NE(Get<uint8_t>(0x15), generation);
  EXPECT_EQ(Get<uint8_t>(kIsrOffset), 2);
  EXPECT_EQ(Get<uint8_t>(kIsrOffset), 0);
}

TEST_F(RegistersTest, DeviceConfigurationIsTheDevices) {
  EXPECT_EQ(Get<uint32_t>(kDeviceConfigOffset + 4), 0x07060504U);
  Put<uint8_t>(kDeviceConfigOffset + 20, 9);
  EXPECT_THAT(device_.written, ElementsAre(std::pair<uint64_t, uint8_t>(20, 9)));
}

TEST_F(RegistersTest, NothingHappensWhileStopped) {
  DriverQueue driver(*ram_, 0x1000, 8);
  const std::array<DriverQueue::Buffer, 1> buffer = {{{0x10000, 8}}};
  Negotiate(kFeatureVersion1);
  SetUpQueue(0, driver.setup(), 0);
  DriverOk();
  registers_->Stop();
  driver.Add(buffer);
  Put<uint16_t>(kDoorbellOffset, 0);
  Settle();
  EXPECT_FALSE(driver.TakeUsed().has_value());
  registers_->Start();
  EXPECT_TRUE(driver.TakeUsed().has_value());
}

TEST_F(RegistersTest, AMachineResetForgetsTheDriver) {
  Put<uint16_t>(0x16, 1);
  Negotiate(kFeatureVersion1);
  DriverOk();
  registers_->Stop();
  registers_->Reset();
  EXPECT_EQ(Get<uint8_t>(0x14), 0);
  EXPECT_EQ(Get<uint16_t>(0x16), 0);
  registers_->Start();
}

}  // namespace
}  // namespace bothy::virtio
