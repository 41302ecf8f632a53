#include "virtio/pci/registers.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <future>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::virtio {
namespace {

// Common configuration, offsets in bytes (4.1.4.3).
constexpr uint64_t kDeviceFeatureSelect = 0x00;
constexpr uint64_t kDeviceFeature = 0x04;
constexpr uint64_t kDriverFeatureSelect = 0x08;
constexpr uint64_t kDriverFeature = 0x0C;
constexpr uint64_t kConfigVector = 0x10;
constexpr uint64_t kNumQueues = 0x12;
constexpr uint64_t kDeviceStatus = 0x14;
constexpr uint64_t kConfigGeneration = 0x15;
constexpr uint64_t kQueueSelect = 0x16;
constexpr uint64_t kQueueSize = 0x18;
constexpr uint64_t kQueueVector = 0x1A;
constexpr uint64_t kQueueEnable = 0x1C;
constexpr uint64_t kQueueNotifyOffset = 0x1E;
constexpr uint64_t kQueueDescriptors = 0x20;
constexpr uint64_t kQueueDriver = 0x28;
constexpr uint64_t kQueueDevice = 0x30;

constexpr uint8_t kIsrConfig = 2;

// A 64-bit register is written whole or by halves.
bool WriteWide(uint64_t register_offset, uint64_t offset, uint64_t value, size_t size,
               uint64_t& target) {
  if (offset == register_offset && size == 8) {
    target = value;
  } else if (offset == register_offset && size == 4) {
    target = (target & ~uint64_t{UINT32_MAX}) | value;
  } else if (offset == register_offset + 4 && size == 4) {
    target = (target & UINT32_MAX) | value << 32;
  } else {
    return false;
  }
  return true;
}

// Runs `begin` on the loop, hands it what it has to call at the end, and waits for that.
void RunAndWait(IoLoop& loop, const std::function<void(std::function<void()>)>& begin) {
  std::promise<void> done;
  loop.Post([&] { begin([&done] { done.set_value(); }); });
  done.get_future().wait();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Registers>> Registers::Create(Device& device, IoLoop& loop,
                                                             const memory::GuestMemory& memory,
                                                             InterruptSink& interrupts) {
  CHECK(device.queue_sizes().size() <= kMaxQueues);
  std::vector<Doorbell> doorbells(device.queue_sizes().size());
  for (Doorbell& doorbell : doorbells) {
    doorbell.event.Reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!doorbell.event) return ErrnoStatus(errno, "eventfd for a virtqueue");
  }
  auto registers = std::unique_ptr<Registers>(
      new Registers(device, loop, memory, interrupts, std::move(doorbells)));
  loop.PostAndWait([raw = registers.get()] {
    for (uint16_t i = 0; i < raw->queue_count(); ++i) raw->WatchDoorbell(i);
  });
  return registers;
}

Registers::Registers(Device& device, IoLoop& loop, const memory::GuestMemory& memory,
                     InterruptSink& interrupts, std::vector<Doorbell> doorbells)
    : device_(device),
      loop_(loop),
      memory_(memory),
      interrupts_(interrupts),
      doorbells_(std::move(doorbells)) {
  const std::lock_guard lock(mutex_);
  Forget();
}

Registers::~Registers() {
  RunAndWait(loop_, [this](std::function<void()> done) { device_.Reset(std::move(done)); });
  loop_.PostAndWait([this] {
    for (Doorbell& doorbell : doorbells_) doorbell.watch.reset();
  });
}

void Registers::WatchDoorbell(uint16_t queue) {
  Doorbell& doorbell = doorbells_[queue];
  doorbell.watch = loop_.WatchDoorbell(doorbell.event.get(), [this, queue] {
    doorbells_[queue].rung.fetch_add(1, std::memory_order_relaxed);
    device_.OnDoorbell(queue);
  });
}

uint64_t Registers::OfferedFeatures() const {
  return device_.features() | kFeatureIndirectDescriptors | kFeatureEventIndex | kFeatureVersion1;
}

QueueState Registers::InitialQueue(size_t index) const {
  return {.size = device_.queue_sizes()[index]};
}

void Registers::Forget() {
  const uint8_t generation = state_.config_generation;
  state_ = {};
  state_.config_generation = generation;
  for (size_t i = 0; i < doorbells_.size(); ++i) {
    state_.queues.push_back(InitialQueue(i));
    doorbells_[i].vector.store(kNoVector, std::memory_order_relaxed);
  }
  active_ = false;
  broken_reason_.clear();
  device_.ResetConfig();
}

void Registers::Read(uint64_t offset, std::span<uint8_t> data) {
  std::memset(data.data(), 0, data.size());
  if (offset >= kDeviceConfigOffset && offset < kDeviceConfigOffset + kDeviceConfigBytes) {
    return device_.ReadConfig(offset - kDeviceConfigOffset, data);
  }
  const std::lock_guard lock(mutex_);
  if (offset == kIsrOffset) {
    data[0] = std::exchange(state_.isr, uint8_t{0});  // reading acknowledges (4.1.4.5)
  } else if (offset < kCommonBytes) {
    // Any width: byte by byte out of the registers, whose values the lock holds still.
    for (size_t i = 0; i < data.size(); ++i) {
      const uint64_t at = offset + i;
      const uint64_t word = ReadCommon(at & ~uint64_t{7});
      data[i] = static_cast<uint8_t>(word >> (8 * (at & 7)));
    }
  }
}

// Eight bytes of the common configuration, from a multiple of 8.
uint64_t Registers::ReadCommon(uint64_t offset) const {
  const auto at = [offset](uint64_t register_offset, uint64_t value) {
    return value << (8 * (register_offset - offset));
  };
  const auto feature_word = [](uint64_t features, uint32_t select) -> uint64_t {
    return select < 2 ? static_cast<uint32_t>(features >> (32 * select)) : 0;
  };
  const QueueState none;
  const bool selected = state_.queue_select < state_.queues.size();
  const QueueState& queue = selected ? state_.queues[state_.queue_select] : none;
  switch (offset) {
    case kDeviceFeatureSelect:
      return at(kDeviceFeatureSelect, state_.device_feature_select) |
             at(kDeviceFeature, feature_word(OfferedFeatures(), state_.device_feature_select));
    case kDriverFeatureSelect:
      return at(kDriverFeatureSelect, state_.driver_feature_select) |
             at(kDriverFeature, feature_word(state_.driver_features, state_.driver_feature_select));
    case kConfigVector:
      return at(kConfigVector, state_.config_vector) | at(kNumQueues, state_.queues.size()) |
             at(kDeviceStatus, state_.status) | at(kConfigGeneration, state_.config_generation) |
             at(kQueueSelect, state_.queue_select);
    case kQueueSize:
      return at(kQueueSize, queue.size) | at(kQueueVector, queue.vector) |
             at(kQueueEnable, queue.enabled ? 1 : 0) |
             at(kQueueNotifyOffset, selected ? state_.queue_select : 0);
    case kQueueDescriptors:
      return queue.descriptor_gpa;
    case kQueueDriver:
      return queue.driver_gpa;
    case kQueueDevice:
      return queue.device_gpa;
    default:
      return 0;
  }
}

void Registers::Write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset >= kDoorbellOffset) {
    // The kernel rings most doorbells itself; this is for what it doesn't catch.
    const uint64_t queue = (offset - kDoorbellOffset) / kDoorbellStride;
    if (queue < doorbells_.size()) {
      const uint64_t one = 1;
      // A full counter has rung already.
      (void)!::write(doorbells_[queue].event.get(), &one, sizeof one);
    }
    return;
  }
  if (offset >= kDeviceConfigOffset) {
    return device_.WriteConfig(offset - kDeviceConfigOffset, data);
  }
  if (offset >= kCommonBytes) return;
  uint64_t value = 0;
  std::memcpy(&value, data.data(), data.size());
  WriteCommon(offset, value, data.size());
}

uint16_t Registers::CheckedVector(uint64_t value) const {
  // What can't be used reads back as "no vector" (4.1.4.3.2).
  return value < interrupts_.vector_count() ? static_cast<uint16_t>(value) : kNoVector;
}

// Accesses of another width than the register's change nothing (4.1.3.1).
void Registers::WriteCommon(uint64_t offset, uint64_t value, size_t size) {
  const std::lock_guard lock(mutex_);
  if (offset >= kQueueSize) return WriteQueue(offset, value, size);
  if (offset == kDeviceFeatureSelect && size == 4) {
    state_.device_feature_select = static_cast<uint32_t>(value);
  } else if (offset == kDriverFeatureSelect && size == 4) {
    state_.driver_feature_select = static_cast<uint32_t>(value);
  } else if (offset == kDriverFeature && size == 4) {
    // Settled once FEATURES_OK is (2.2.1).
    if (state_.driver_feature_select >= 2 || (state_.status & kStatusFeaturesOk) != 0) return;
    const uint32_t shift = 32 * state_.driver_feature_select;
    state_.driver_features =
        (state_.driver_features & ~(uint64_t{UINT32_MAX} << shift)) | value << shift;
  } else if (offset == kConfigVector && size == 2) {
    state_.config_vector = CheckedVector(value);
  } else if (offset == kDeviceStatus && size == 1) {
    WriteStatus(static_cast<uint8_t>(value));
  } else if (offset == kQueueSelect && size == 2) {
    state_.queue_select = static_cast<uint16_t>(value);
  }
}

void Registers::WriteQueue(uint64_t offset, uint64_t value, size_t size) {
  if (state_.queue_select >= state_.queues.size()) return;
  QueueState& queue = state_.queues[state_.queue_select];
  if (offset == kQueueVector && size == 2) {
    queue.vector = CheckedVector(value);
    doorbells_[state_.queue_select].vector.store(queue.vector, std::memory_order_relaxed);
    return;
  }
  // Where an enabled queue lies doesn't change until the reset (4.1.4.3.2).
  if (queue.enabled) return;
  if (offset == kQueueSize && size == 2) {
    const bool usable =
        std::has_single_bit(value) && value <= device_.queue_sizes()[state_.queue_select];
    if (usable) queue.size = static_cast<uint16_t>(value);
  } else if (offset == kQueueEnable && size == 2) {
    queue.enabled = value == 1;
  } else if (!WriteWide(kQueueDescriptors, offset, value, size, queue.descriptor_gpa) &&
             !WriteWide(kQueueDriver, offset, value, size, queue.driver_gpa)) {
    WriteWide(kQueueDevice, offset, value, size, queue.device_gpa);
  }
}

void Registers::WriteStatus(uint8_t value) {
  if (resetting_) return;
  if (value == 0) return BeginReset();
  // Bits are only ever added (2.1.1); ours to set is NEEDS_RESET.
  const uint8_t added = value & ~state_.status & ~kStatusNeedsReset;
  state_.status |= added & ~(kStatusFeaturesOk | kStatusDriverOk);
  if ((added & kStatusFeaturesOk) != 0) {
    const bool subset = (state_.driver_features & ~OfferedFeatures()) == 0;
    // A driver that knows nothing of version 1 can't drive this device (6.1).
    const bool version1 = (state_.driver_features & kFeatureVersion1) != 0;
    if (subset && version1) state_.status |= kStatusFeaturesOk;
  }
  if ((added & kStatusDriverOk) != 0 && (state_.status & kStatusFeaturesOk) != 0) {
    state_.status |= kStatusDriverOk;
    Activate();
  }
}

void Registers::Activate() {
  std::vector<std::unique_ptr<Virtqueue>> queues(state_.queues.size());
  for (size_t i = 0; i < queues.size(); ++i) {
    const QueueState& queue = state_.queues[i];
    if (!queue.enabled) continue;
    auto created =
        Virtqueue::Create(memory_,
                          {.size = queue.size,
                           .descriptor_gpa = queue.descriptor_gpa,
                           .driver_gpa = queue.driver_gpa,
                           .device_gpa = queue.device_gpa,
                           .indirect = (state_.driver_features & kFeatureIndirectDescriptors) != 0,
                           .event_index = (state_.driver_features & kFeatureEventIndex) != 0,
                           .backing = device_.backing()},
                          &doorbells_[i].used_chains);
    if (!created.ok()) {
      return SetNeedsReset(WithContext(created.status(), absl::StrCat("queue ", i)));
    }
    queues[i] = *std::move(created);
  }
  active_ = true;
  auto shared = std::make_shared<std::vector<std::unique_ptr<Virtqueue>>>(std::move(queues));
  loop_.Post([this, features = state_.driver_features, shared] {
    device_.Activate(*this, features, std::move(*shared));
  });
}

void Registers::BeginReset() {
  // A device that no driver has set going has nothing to let go of: a driver may go on at once, and
  // so do those that don't wait for the status to be 0.
  if (!active_) return Forget();
  resetting_ = true;
  // After whatever was posted for this driver.
  loop_.Post([this] {
    device_.Reset([this] {
      const std::lock_guard lock(mutex_);
      resetting_ = false;
      Forget();
    });
  });
}

void Registers::InterruptQueue(uint16_t queue) {
  const uint16_t vector = doorbells_[queue].vector.load(std::memory_order_relaxed);
  if (vector == kNoVector) return;
  interrupts_sent_.fetch_add(1, std::memory_order_relaxed);
  doorbells_[queue].interrupts.fetch_add(1, std::memory_order_relaxed);
  interrupts_.Signal(vector);
}

int Registers::LendDoorbell(uint16_t queue) {
  doorbells_[queue].watch.reset();
  return doorbells_[queue].event.get();
}

void Registers::ReturnDoorbell(uint16_t queue) {
  if (doorbells_[queue].watch == nullptr) WatchDoorbell(queue);
}

absl::StatusOr<int> Registers::InterruptEvent(uint16_t queue) {
  const uint16_t vector = doorbells_[queue].vector.load(std::memory_order_relaxed);
  if (vector == kNoVector) return -1;
  return interrupts_.EventFd(vector);
}

void Registers::SignalConfig() {
  if (state_.config_vector == kNoVector) return;
  interrupts_sent_.fetch_add(1, std::memory_order_relaxed);
  interrupts_.Signal(state_.config_vector);
}

void Registers::ConfigChanged() {
  const std::lock_guard lock(mutex_);
  ++state_.config_generation;
  state_.isr |= kIsrConfig;
  if ((state_.status & kStatusDriverOk) != 0) SignalConfig();
}

void Registers::NeedsReset(const absl::Status& reason) {
  const std::lock_guard lock(mutex_);
  if (!resetting_) SetNeedsReset(reason);
}

void Registers::SetNeedsReset(const absl::Status& reason) {
  log_limiter_.Log(
      LogLevel::kWarning, device_.name(),
      absl::StrCat("broken by its driver, which must reset it: ", std::string(reason.message())));
  broken_reason_ = std::string(reason.message());
  state_.status |= kStatusNeedsReset;
  state_.isr |= kIsrConfig;
  SignalConfig();
}

void Registers::Start() {
  loop_.PostAndWait([this] { device_.Resume(); });
}

void Registers::Stop() {
  RunAndWait(loop_, [this](std::function<void()> done) { device_.Quiesce(std::move(done)); });
}

void Registers::Reset() {
  RunAndWait(loop_, [this](std::function<void()> done) { device_.Reset(std::move(done)); });
  const std::lock_guard lock(mutex_);
  resetting_ = false;
  Forget();
}

void Registers::BusReset() {
  const std::lock_guard lock(mutex_);
  if (!resetting_) BeginReset();
}

void Registers::Inspect(inspect::Node& node) const {
  const DeviceState state = Snapshot();
  node.Value("status", state.status);
  node.Address("features", state.driver_features);
  node.Value("interrupts", interrupts_sent());
  if (const std::string reason = broken_reason(); !reason.empty()) {
    node.Value("needs_reset", reason);
  }
  node.Child("queues", [this, &state](inspect::Node& queues) {
    for (size_t i = 0; i < state.queues.size(); ++i) {
      queues.Child(std::to_string(i),
                   [&queue = state.queues[i], &doorbell = doorbells_[i]](inspect::Node& one) {
                     one.Value("enabled", queue.enabled);
                     one.Value("size", queue.size);
                     one.Address("descriptors", queue.descriptor_gpa);
                     one.Address("available", queue.driver_gpa);
                     one.Address("used", queue.device_gpa);
                     one.Value("doorbells", doorbell.rung.load(std::memory_order_relaxed));
                     one.Value("used_chains", doorbell.used_chains.load(std::memory_order_relaxed));
                     one.Value("interrupts", doorbell.interrupts.load(std::memory_order_relaxed));
                   });
    }
  });
}

DeviceState Registers::Snapshot() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::string Registers::broken_reason() const {
  const std::lock_guard lock(mutex_);
  return broken_reason_;
}

}  // namespace bothy::virtio
