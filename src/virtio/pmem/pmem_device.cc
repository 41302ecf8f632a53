#include "virtio/pmem/pmem_device.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

// Configuration (5.19.4), offsets in bytes.
constexpr size_t kConfigStart = 0;
constexpr size_t kConfigSize = 8;
constexpr size_t kConfigBytes = 16;

// A request and its response (5.19.6), both le32.
constexpr size_t kRequestBytes = 4;
constexpr uint32_t kRequestFlush = 0;
constexpr size_t kResponseBytes = 4;
constexpr uint32_t kResponseOk = 0;
constexpr uint32_t kResponseFailed = UINT32_MAX;  // -1

// Linux has one request in flight for each thread that syncs.
constexpr uint16_t kQueueSize = 128;
// Chains taken in one round of the loop, so that a reset gets its turn whatever the driver offers.
constexpr int kChainsPerRound = 2 * kQueueSize;

}  // namespace

PmemDevice::PmemDevice(PmemDeviceOptions options, Flushable& memory, IoLoop& loop)
    : options_(std::move(options)),
      memory_(memory),
      queue_sizes_{kQueueSize},
      rounds_(loop, [this](uint16_t) { Serve(); }) {}

PmemDevice::~PmemDevice() { CHECK(in_flight_ == 0); }

void PmemDevice::ReadConfig(uint64_t offset, std::span<uint8_t> data) {
  std::array<uint8_t, kConfigBytes> config{};
  StoreLe<uint64_t>(&config[kConfigStart], options_.guest_base);
  StoreLe<uint64_t>(&config[kConfigSize], options_.size_bytes);
  ReadConfigFrom(config, offset, data);
}

// Nothing there is the driver's to write.
void PmemDevice::WriteConfig(uint64_t /*offset*/, std::span<const uint8_t> /*data*/) {}

void PmemDevice::Activate(Transport& transport, uint64_t /*features*/,
                          std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  queue_ = std::move(queues[kRequestQueue]);
  broken_ = false;
  Serve();
}

void PmemDevice::OnDoorbell(uint16_t /*queue*/) { Serve(); }

void PmemDevice::Quiesce(std::function<void()> done) {
  quiesced_ = true;
  on_idle_.push_back([this, done = std::move(done)] { Start(memory_.Settle(), done); });
  OnIdle();
}

void PmemDevice::Resume() {
  quiesced_ = false;
  Serve();
}

void PmemDevice::Reset(std::function<void()> done) {
  // No request is taken from now on; those under way are answered, the memory is still the
  // driver's.
  broken_ = true;
  on_idle_.push_back([this, done = std::move(done)] {
    queue_.reset();
    transport_ = nullptr;
    broken_ = false;
    done();
  });
  OnIdle();
}

void PmemDevice::OnIdle() {
  if (in_flight_ != 0) return;
  for (const std::function<void()>& idle : std::exchange(on_idle_, {})) idle();
}

void PmemDevice::Serve() {
  if (queue_ == nullptr) return;
  Chain chain;
  for (int taken = 0; serving(); ++taken) {
    if (taken == kChainsPerRound) return rounds_.Add(kRequestQueue);
    const absl::StatusOr<bool> popped = queue_->Pop(chain);
    const absl::Status status = !popped.ok() ? popped.status()
                                : *popped    ? StartRequest(chain)
                                             : absl::OkStatus();
    if (!status.ok()) {
      broken_ = true;
      return transport_->NeedsReset(status);
    }
    if (!*popped && !queue_->EnableDoorbell()) return;
  }
}

absl::Status PmemDevice::StartRequest(const Chain& chain) {
  if (chain.writable_bytes < kResponseBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a request with room for ", chain.writable_bytes,
                                                   " bytes of response; it takes ",
                                                   kResponseBytes));
  }
  requests_.fetch_add(1, std::memory_order_relaxed);
  std::array<uint8_t, kRequestBytes> request{};
  ++in_flight_;
  if (!CopyFrom(chain.readable, request) || LoadLe<uint32_t>(request.data()) != kRequestFlush) {
    Answer(chain.head, chain.writable, false);
    return absl::OkStatus();
  }
  Start(memory_.Flush(), [this, head = chain.head, writable = chain.writable](
                             const absl::Status& status) { Answer(head, writable, status.ok()); });
  return absl::OkStatus();
}

void PmemDevice::Answer(uint16_t head, std::span<const iovec> writable, bool ok) {
  if (!ok) failed_.fetch_add(1, std::memory_order_relaxed);
  std::array<uint8_t, kResponseBytes> response{};
  StoreLe<uint32_t>(response.data(), ok ? kResponseOk : kResponseFailed);
  CopyTo(response, writable);
  queue_->Push(head, kResponseBytes);
  if (queue_->ShouldInterrupt()) transport_->InterruptQueue(kRequestQueue);
  --in_flight_;
  OnIdle();
}

PmemDevice::Counters PmemDevice::counters() const {
  return {.requests = requests_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed)};
}

}  // namespace bothy::virtio
