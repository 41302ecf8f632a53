#include "virtio/balloon/balloon_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/endian.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

// 5.5.3
constexpr uint64_t kFeatureStatistics = uint64_t{1} << 1;
constexpr uint64_t kFeatureDeflateOnOom = uint64_t{1} << 2;
constexpr uint64_t kFeaturePagePoison = uint64_t{1} << 4;
constexpr uint64_t kFeaturePageReporting = uint64_t{1} << 5;

// The configuration (5.5.4), offsets in bytes, all le32.
constexpr size_t kConfigActual = 4;
constexpr size_t kConfigPoison = 12;
constexpr size_t kConfigBytes = 16;

constexpr uint16_t kInflateQueue = 0;
constexpr uint16_t kStatisticsQueue = 2;
// By 5.5.2 reports come on queue 4, behind one for hints. Drivers number the queues of the features
// that they have; so whatever is behind the statistics is for reports.
constexpr uint16_t kQueues = 5;
constexpr uint16_t kQueueSize = 128;
// So that a reset gets its turn soon, whatever the driver offers: pages are given back to the host
// one by one, some microseconds each.
constexpr int kChainsPerRound = 4;
// A guest needn't answer; who asked longest ago has waited long enough then.
constexpr size_t kMostWaiting = 64;

// The balloon's pages (5.5.6), whatever those of the guest are, by le32 numbers. Drivers send up to
// a page of them at once.
constexpr uint64_t kPageBytes = 4096;
constexpr size_t kNumberBytes = 4;
constexpr uint64_t kMostNumbers = 1024;
// More than there are tags, by far.
constexpr uint64_t kMostStatistics = 64;

}  // namespace

BalloonDevice::BalloonDevice(BalloonDeviceOptions options, memory::GuestMemory& memory,
                             IoLoop& loop)
    : options_(std::move(options)),
      memory_(memory),
      queue_sizes_(kQueues, kQueueSize),
      rounds_(loop, [this](uint16_t queue) { Serve(queue); }) {}

BalloonDevice::~BalloonDevice() { TellWaiting(); }

uint64_t BalloonDevice::features() const {
  // Without the poison's value a driver whose free pages aren't zero wouldn't report any.
  return kFeatureStatistics | kFeatureDeflateOnOom |
         (options_.report_free_pages ? kFeaturePagePoison | kFeaturePageReporting : 0);
}

void BalloonDevice::ReadConfig(uint64_t offset, std::span<uint8_t> data) {
  std::array<uint8_t, kConfigBytes> config{};
  StoreLe(&config[kConfigActual], actual_pages_.load(std::memory_order_relaxed));
  StoreLe(&config[kConfigPoison], poison_.load(std::memory_order_relaxed));
  ReadConfigFrom(config, offset, data);
}

void BalloonDevice::WriteConfig(uint64_t offset, std::span<const uint8_t> data) {
  if (data.size() != sizeof(uint32_t)) return;
  const auto value = LoadLe<uint32_t>(data.data());
  if (offset == kConfigActual) actual_pages_.store(value, std::memory_order_relaxed);
  if (offset == kConfigPoison) poison_.store(value, std::memory_order_relaxed);
}

void BalloonDevice::ResetConfig() {
  actual_pages_.store(0, std::memory_order_relaxed);
  poison_.store(0, std::memory_order_relaxed);
}

void BalloonDevice::Activate(Transport& transport, uint64_t features,
                             std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  features_ = features;
  queues_ = std::move(queues);
  broken_ = false;
  for (uint16_t queue = 0; queue < kQueues; ++queue) Serve(queue);
}

void BalloonDevice::OnDoorbell(uint16_t queue) { Serve(queue); }

void BalloonDevice::Quiesce(std::function<void()> done) {
  quiesced_ = true;
  TellWaiting();
  done();
}

void BalloonDevice::Resume() {
  quiesced_ = false;
  for (uint16_t queue = 0; queue < kQueues; ++queue) Serve(queue);
}

void BalloonDevice::Reset(std::function<void()> done) {
  TellWaiting();
  queues_.clear();
  statistics_head_.reset();
  transport_ = nullptr;
  broken_ = false;
  {
    const std::lock_guard lock(mutex_);
    statistics_ = {};
  }
  done();
}

BalloonDevice::Role BalloonDevice::RoleOf(uint16_t queue) const {
  if (queue < kStatisticsQueue) return queue == kInflateQueue ? Role::kInflate : Role::kDeflate;
  const bool statistics = (features_ & kFeatureStatistics) != 0;
  return statistics && queue == kStatisticsQueue ? Role::kStatistics : Role::kReport;
}

void BalloonDevice::Serve(uint16_t queue) {
  if (!serving() || queue >= queues_.size() || queues_[queue] == nullptr) return;
  Virtqueue& ring = *queues_[queue];
  Chain chain;
  bool used = false;
  for (int taken = 0; serving(); ++taken) {
    if (taken == kChainsPerRound) {
      rounds_.Add(queue);
      break;
    }
    const absl::StatusOr<bool> popped = ring.Pop(chain);
    const absl::Status status = !popped.ok() ? popped.status()
                                : *popped    ? Take(queue, chain)
                                             : absl::OkStatus();
    if (!status.ok()) {
      broken_ = true;
      TellWaiting();
      return transport_->NeedsReset(status);
    }
    if (*popped) {
      used = true;
    } else if (!ring.EnableDoorbell()) {
      break;
    }
  }
  if (used && ring.ShouldInterrupt()) transport_->InterruptQueue(queue);
}

absl::Status BalloonDevice::Take(uint16_t queue, const Chain& chain) {
  switch (RoleOf(queue)) {
    case Role::kInflate:
      RETURN_IF_ERROR(Inflate(chain));
      break;
    case Role::kDeflate:
      // Pages come back when they are touched.
      break;
    case Role::kReport:
      TakeReport(chain);
      break;
    case Role::kStatistics:
      TakeStatistics(queue, chain);
      return absl::OkStatus();
  }
  queues_[queue]->Push(chain.head, 0);
  return absl::OkStatus();
}

absl::Status BalloonDevice::Inflate(const Chain& chain) {
  const uint64_t count = chain.readable_bytes / kNumberBytes;
  if (count > kMostNumbers) {
    return absl::InvalidArgumentError(
        absl::StrCat(count, " pages put into the balloon at once; at most ", kMostNumbers));
  }
  bytes_.resize(count * kNumberBytes);
  CopyFrom(chain.readable, bytes_);
  inflated_bytes_.fetch_add(count * kPageBytes, std::memory_order_relaxed);
  uint64_t discarded = 0;
  for (uint64_t i = 0; i < count;) {
    // Neighbours at once.
    const uint64_t first = LoadLe<uint32_t>(&bytes_[i * kNumberBytes]);
    uint64_t pages = 1;
    while (i + pages < count &&
           LoadLe<uint32_t>(&bytes_[(i + pages) * kNumberBytes]) == first + pages) {
      ++pages;
    }
    i += pages;
    // What isn't in one range of RAM is the driver's loss.
    const auto host = memory_.HostRange(first * kPageBytes, pages * kPageBytes);
    if (host.ok()) discarded += memory_.Discard(*host);
  }
  discarded_bytes_.fetch_add(discarded, std::memory_order_relaxed);
  return absl::OkStatus();
}

// The buffers themselves are what is free (5.5.6.6).
void BalloonDevice::TakeReport(const Chain& chain) {
  if ((features_ & kFeaturePageReporting) == 0) return;
  reported_bytes_.fetch_add(chain.writable_bytes, std::memory_order_relaxed);
  // The guest counts on finding them as they were, full of this (5.5.6.6.2); the host has only
  // zeros to give.
  if ((features_ & kFeaturePagePoison) != 0 && poison_.load(std::memory_order_relaxed) != 0) return;
  uint64_t discarded = 0;
  for (const iovec& buffer : chain.writable) {
    discarded += memory_.Discard({static_cast<uint8_t*>(buffer.iov_base), buffer.iov_len});
  }
  discarded_bytes_.fetch_add(discarded, std::memory_order_relaxed);
}

void BalloonDevice::TakeStatistics(uint16_t queue, const Chain& chain) {
  bytes_.resize(std::min(chain.readable_bytes, kMostStatistics * balloon::kStatisticBytes));
  CopyFrom(chain.readable, bytes_);
  {
    const std::lock_guard lock(mutex_);
    statistics_ = balloon::Statistics::Parse(bytes_);
  }
  statistics_received_.fetch_add(1, std::memory_order_relaxed);
  // A driver has one such buffer; one that gives two gets the older one back.
  if (statistics_head_.has_value()) queues_[queue]->Push(*statistics_head_, 0);
  statistics_head_ = chain.head;
  TellWaiting();
}

void BalloonDevice::AskStatistics(std::function<void()> done) {
  const bool has_queue = serving() && RoleOf(kStatisticsQueue) == Role::kStatistics &&
                         queues_.size() > kStatisticsQueue && queues_[kStatisticsQueue] != nullptr;
  if (!has_queue) return done();
  waiting_.push_back(std::move(done));
  if (waiting_.size() > kMostWaiting) {
    const std::function<void()> oldest = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    oldest();
  }
  ReturnStatisticsBuffer();
}

void BalloonDevice::ReturnStatisticsBuffer() {
  // Without it the driver has been asked already, or has yet to begin.
  if (!statistics_head_.has_value()) return;
  Virtqueue& ring = *queues_[kStatisticsQueue];
  ring.Push(*std::exchange(statistics_head_, std::nullopt), 0);
  if (ring.ShouldInterrupt()) transport_->InterruptQueue(kStatisticsQueue);
}

void BalloonDevice::TellWaiting() {
  for (const std::function<void()>& done : std::exchange(waiting_, {})) done();
}

balloon::Statistics BalloonDevice::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void BalloonDevice::Inspect(inspect::Node& node) const {
  const auto read = [](const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  node.Value("reports_free_pages", options_.report_free_pages);
  node.Value("size_bytes", actual_pages_.load(std::memory_order_relaxed) * kPageBytes);
  node.Value("inflated_bytes", read(inflated_bytes_));
  node.Value("reported_bytes", read(reported_bytes_));
  node.Value("discarded_bytes", read(discarded_bytes_));
  node.Value("statistics_received", read(statistics_received_));
  node.Child("guest", statistics());
}

}  // namespace bothy::virtio
