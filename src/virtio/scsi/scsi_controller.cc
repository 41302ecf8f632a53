#include "virtio/scsi/scsi_controller.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

using scsi_wire::kControlQueue;
using scsi_wire::kEventQueue;
using scsi_wire::kFirstRequestQueue;
using scsi_wire::Response;

constexpr uint16_t kControlQueueSize = 64;
// One buffer a unit, or a burst of changes waits for the driver.
constexpr uint16_t kEventQueueSize = 64;
constexpr uint16_t kRequestQueueSize = 256;
// Data buffers of a request: its chain less the header and the response.
constexpr uint32_t kSegMax = kRequestQueueSize - 2;
constexpr uint32_t kMaxSectors = 0xFFFF;
constexpr uint32_t kCommandsPerLun = 128;
// Chains taken in one round of the loop, so that completions, events and a pause get their turn.
constexpr int kChainsPerRound = 256;
// What a driver may make of the sizes in the configuration (5.6.4 sets no bound).
constexpr uint32_t kMaxSenseSize = 252;
constexpr uint32_t kMaxCdbSize = 260;

// The LUN field (5.6.6.1): 1, the target, a flat or peripheral LUN; REPORT LUNS's own is 0xC1 0x01.
struct Address {
  bool valid = false;
  uint16_t lun = 0;
};

Address DecodeLun(std::span<const uint8_t, scsi_wire::kLunBytes> bytes) {
  const bool tail_clear =
      std::all_of(bytes.begin() + 4, bytes.end(), [](uint8_t b) { return b == 0; });
  if (bytes[0] != 1 || bytes[1] != 0 || !tail_clear) return {};
  const uint16_t field = LoadBe<uint16_t>(&bytes[2]);
  constexpr uint16_t kMethodMask = 0xC000;
  constexpr uint16_t kPeripheral = 0x0000;
  constexpr uint16_t kFlat = 0x4000;
  const uint16_t method = field & kMethodMask;
  if (method != kPeripheral && method != kFlat) return {};
  return {.valid = true, .lun = static_cast<uint16_t>(field & ~kMethodMask)};
}

std::array<uint8_t, scsi_wire::kLunBytes> EncodeLun(uint16_t lun) {
  // Peripheral, as in REPORT LUNS: Linux takes bytes 2 and 3 of an event for the number as it is,
  // and for another unit than the one it has when the method's bits are set.
  static_assert(scsi::kMaxLuns <= 256);
  return {1, 0, 0, static_cast<uint8_t>(lun), 0, 0, 0, 0};
}

Response ToWire(scsi::Outcome outcome) {
  switch (outcome) {
    case scsi::Outcome::kOk:
      return Response::kOk;
    case scsi::Outcome::kBadTarget:
      return Response::kBadTarget;
    case scsi::Outcome::kAborted:
      return Response::kAborted;
    case scsi::Outcome::kReset:
      return Response::kReset;
    case scsi::Outcome::kOverrun:
      return Response::kOverrun;
    case scsi::Outcome::kBusy:
      return Response::kBusy;
    case scsi::Outcome::kFailure:
      return Response::kFailure;
  }
  return Response::kFailure;
}

// ACA is none for a target without auto contingent allegiance (SAM-5, 5.2), nor is what isn't
// named.
std::optional<scsi::TaskAttribute> ToAttribute(uint8_t wire) {
  switch (wire) {
    case scsi_wire::kSimpleTask:
      return scsi::TaskAttribute::kSimple;
    case scsi_wire::kOrderedTask:
      return scsi::TaskAttribute::kOrdered;
    case scsi_wire::kHeadTask:
      return scsi::TaskAttribute::kHeadOfQueue;
    default:
      return std::nullopt;
  }
}

// ns.
int64_t SteadyNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// A command from its chain to its answer. Kept and reused, so that its vectors have grown.
class ScsiController::Request final : public scsi::Command {
 public:
  explicit Request(ScsiController& controller) : controller_(controller) {}
  void Complete() override { controller_.Finish(*this); }

  Chain chain;
  uint16_t queue = 0;
  std::array<uint8_t, scsi_wire::kRequestCdb + kMaxCdbSize> header{};
  std::vector<iovec> data_out_buffers;
  std::vector<iovec> data_in_buffers;

 private:
  ScsiController& controller_;
};

ScsiController::ScsiController(ScsiControllerOptions options, scsi::Target& target, IoLoop& loop)
    : options_(std::move(options)),
      target_(target),
      loop_(loop),
      rounds_(loop, [this](uint16_t queue) { OnDoorbell(queue); }) {
  if (!options_.now) options_.now = SteadyNow;
  CHECK(options_.request_queues >= 1 && options_.request_queues <= kMaxScsiRequestQueues);
  queue_sizes_ = {kControlQueueSize, kEventQueueSize};
  queue_sizes_.resize(kFirstRequestQueue + options_.request_queues, kRequestQueueSize);
}

ScsiController::~ScsiController() { CHECK(in_flight_ == 0); }

void ScsiController::ReadConfig(uint64_t offset, std::span<uint8_t> data) {
  std::array<uint8_t, scsi_wire::kConfigBytes> config{};
  StoreLe<uint32_t>(&config[scsi_wire::kConfigNumQueues], options_.request_queues);
  StoreLe<uint32_t>(&config[scsi_wire::kConfigSegMax], kSegMax);
  StoreLe<uint32_t>(&config[scsi_wire::kConfigMaxSectors], kMaxSectors);
  StoreLe<uint32_t>(&config[scsi_wire::kConfigCmdPerLun], kCommandsPerLun);
  StoreLe<uint32_t>(&config[scsi_wire::kConfigEventInfoSize], scsi_wire::kEventBytes);
  StoreLe<uint16_t>(&config[scsi_wire::kConfigMaxChannel], 0);
  StoreLe<uint16_t>(&config[scsi_wire::kConfigMaxTarget], 0);
  StoreLe<uint32_t>(&config[scsi_wire::kConfigMaxLun], scsi::kMaxLuns - 1);
  {
    const std::lock_guard lock(config_mutex_);
    StoreLe<uint32_t>(&config[scsi_wire::kConfigSenseSize], sense_size_);
    StoreLe<uint32_t>(&config[scsi_wire::kConfigCdbSize], cdb_size_);
  }
  ReadConfigFrom(config, offset, data);
}

void ScsiController::WriteConfig(uint64_t offset, std::span<const uint8_t> data) {
  if (data.size() != sizeof(uint32_t)) return;
  const auto value = LoadLe<uint32_t>(data.data());
  const std::lock_guard lock(config_mutex_);
  if (offset == scsi_wire::kConfigSenseSize && value <= kMaxSenseSize) sense_size_ = value;
  if (offset == scsi_wire::kConfigCdbSize && value <= kMaxCdbSize) cdb_size_ = value;
}

void ScsiController::ResetConfig() {
  const std::lock_guard lock(config_mutex_);
  sense_size_ = scsi_wire::kDefaultSenseSize;
  cdb_size_ = scsi_wire::kDefaultCdbSize;
}

void ScsiController::Activate(Transport& transport, uint64_t features,
                              std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  broken_ = false;
  queues_ = std::move(queues);
  moderation_.assign(queues_.size(), {});
  {
    const std::lock_guard lock(config_mutex_);
    active_sense_size_ = sense_size_;
    active_cdb_size_ = cdb_size_;
  }
  const uint64_t wanted = scsi_wire::kFeatureHotplug | scsi_wire::kFeatureChange;
  events_.Attach(std::move(queues_[kEventQueue]), (features & wanted) != 0,
                 [this] { InterruptSoon(kEventQueue); });
  if (!quiesced_) Resume();
}

void ScsiController::OnDoorbell(uint16_t queue) {
  if (!serving()) return;
  switch (queue) {
    case kControlQueue:
      return ServeControl();
    case kEventQueue:
      return ServeEvents();
    default:
      return ServeRequests(queue);
  }
}

void ScsiController::Resume() {
  quiesced_ = false;
  target_.Resume();
  if (!serving()) return;
  if (const absl::Status status = events_.Resume(); !status.ok()) return Broken(status);
  for (size_t i = 0; i < queues_.size(); ++i) OnDoorbell(static_cast<uint16_t>(i));
}

void ScsiController::Quiesce(std::function<void()> done) {
  quiesced_ = true;
  events_.Pause();
  // Commands that wait within the target stay there; those that an I/O is under way for end first.
  target_.Quiesce([this, done = std::move(done)] {
    // Their interrupts are out when the caller goes on.
    loop_.Post(done);
  });
}

void ScsiController::Reset(std::function<void()> done) {
  transport_ = nullptr;
  events_.Pause();
  auto forget = [this, done = std::move(done)] {
    events_.Detach();
    queues_.clear();
    broken_ = false;
    interrupt_mask_ = 0;
    polled_ = 0;
    done();
  };
  on_idle_.push_back(std::move(forget));
  target_.Reset();
  OnIdle();
}

void ScsiController::OnIdle() {
  if (in_flight_ != 0) return;
  for (const std::function<void()>& idle : std::exchange(on_idle_, {})) idle();
}

void ScsiController::Broken(const absl::Status& reason) {
  broken_ = true;
  events_.Pause();
  transport_->NeedsReset(reason);
}

void ScsiController::InterruptSoon(uint16_t queue) {
  interrupt_mask_ |= uint64_t{1} << queue;
  if (std::exchange(interrupt_posted_, true)) return;
  loop_.Post([this] { EndRound(); });
}

void ScsiController::EndRound() {
  interrupt_posted_ = false;
  uint64_t mask = std::exchange(interrupt_mask_, 0);
  bool waits = false;
  for (uint16_t i = 0; mask != 0 && transport_ != nullptr; ++i, mask >>= 1) {
    if ((mask & 1) == 0) continue;
    if (!IsTimeToInterrupt(i)) {
      waits = true;
      InterruptSoon(i);
      ServeRequests(i);
      continue;
    }
    // The event queue asks for itself.
    if (i == kEventQueue || queues_[i]->ShouldInterrupt()) transport_->InterruptQueue(i);
    if ((polled_ & uint64_t{1} << i) != 0) ServeRequests(i);
  }
  // What is waited for is work of the guest's, perhaps on this very CPU.
  if (waits) std::this_thread::yield();
}

bool ScsiController::IsTimeToInterrupt(uint16_t queue) {
  if (queue < kFirstRequestQueue) return true;
  InterruptModeration& moderation = moderation_[queue];
  if (!serving()) {
    moderation.Hurry();
    return true;
  }
  return moderation.Decide(options_.now()) != InterruptModeration::Decision::kWait;
}

void ScsiController::ServeRequests(uint16_t index) {
  if (index >= queues_.size() || queues_[index] == nullptr) return;
  Virtqueue& queue = *queues_[index];
  queue.DisableDoorbell();
  polled_ &= ~(uint64_t{1} << index);
  for (int taken = 0; serving(); ++taken) {
    if (taken == kChainsPerRound) return rounds_.Add(index);
    std::unique_ptr<Request> request;
    if (spare_.empty()) {
      request = std::make_unique<Request>(*this);
    } else {
      request = std::move(spare_.back());
      spare_.pop_back();
    }
    const absl::StatusOr<bool> popped = queue.Pop(request->chain);
    if (!popped.ok()) {
      spare_.push_back(std::move(request));
      return Broken(WithContext(popped.status(), absl::StrCat("queue ", index)));
    }
    if (!*popped) {
      spare_.push_back(std::move(request));
      // While more is expected the queue is looked at in every round; nobody needs to ring.
      if (moderation_[index].gathering()) {
        polled_ |= uint64_t{1} << index;
        return;
      }
      if (queue.EnableDoorbell()) continue;
      return;
    }
    moderation_[index].OnTaken(options_.now());
    if (const absl::Status started = StartRequest(index, std::move(request)); !started.ok()) {
      return Broken(WithContext(started, absl::StrCat("queue ", index)));
    }
  }
}

absl::Status ScsiController::StartRequest(uint16_t index, std::unique_ptr<Request> owned) {
  Request& request = *owned;
  const size_t header_bytes = scsi_wire::kRequestCdb + active_cdb_size_;
  const size_t response_bytes = scsi_wire::kResponseSense + active_sense_size_;
  const std::span<uint8_t> header(request.header.data(), header_bytes);
  if (!CopyFrom(request.chain.readable, header) || request.chain.writable_bytes < response_bytes) {
    spare_.push_back(std::move(owned));
    return absl::InvalidArgumentError(
        absl::StrCat("a request of ", request.chain.readable_bytes, " bytes with room for ",
                     request.chain.writable_bytes, " in the answer; at least ", header_bytes,
                     " and ", response_bytes, " are needed"));
  }
  request.queue = index;
  BuffersBehind(request.chain.readable, header_bytes, request.data_out_buffers);
  BuffersBehind(request.chain.writable, response_bytes, request.data_in_buffers);
  ++in_flight_;
  requests_.fetch_add(1, std::memory_order_relaxed);

  const Address address = DecodeLun(header.subspan<scsi_wire::kRequestLun, scsi_wire::kLunBytes>());
  const std::optional<scsi::TaskAttribute> attribute =
      ToAttribute(header[scsi_wire::kRequestAttribute]);
  request.Begin({.lun = address.lun,
                 .tag = LoadLe<uint64_t>(&header[scsi_wire::kRequestTag]),
                 .attribute = attribute.value_or(scsi::TaskAttribute::kSimple),
                 .cdb = header.subspan(scsi_wire::kRequestCdb),
                 .data_out = request.data_out_buffers,
                 .data_out_bytes = request.chain.readable_bytes - header_bytes,
                 .data_in = request.data_in_buffers,
                 .data_in_bytes = request.chain.writable_bytes - response_bytes});
  Request* const raw = owned.release();  // Finish takes it back
  if (!address.valid) {
    raw->outcome = scsi::Outcome::kBadTarget;
    Finish(*raw);
  } else if (!attribute.has_value() ||
             (!raw->data_out_buffers.empty() && !raw->data_in_buffers.empty())) {
    // Both ways is VIRTIO_SCSI_F_INOUT, which isn't offered.
    raw->outcome = scsi::Outcome::kFailure;
    Finish(*raw);
  } else {
    target_.Execute(*raw);
  }
  return absl::OkStatus();
}

void ScsiController::Finish(Request& finished) {
  std::unique_ptr<Request> request(&finished);
  std::array<uint8_t, scsi_wire::kResponseSense + kMaxSenseSize> response{};
  const std::span<const uint8_t> sense = request->sense();
  const size_t sense_bytes = std::min(sense.size(), active_sense_size_);
  StoreLe<uint32_t>(&response[scsi_wire::kResponseSenseLength], static_cast<uint32_t>(sense_bytes));
  StoreLe<uint32_t>(&response[scsi_wire::kResponseResidual],
                    static_cast<uint32_t>(std::min<uint64_t>(request->residual, UINT32_MAX)));
  response[scsi_wire::kResponseStatus] = static_cast<uint8_t>(request->status);
  response[scsi_wire::kResponseResponse] = static_cast<uint8_t>(ToWire(request->outcome));
  std::memcpy(&response[scsi_wire::kResponseSense], sense.data(), sense_bytes);
  const size_t response_bytes = scsi_wire::kResponseSense + active_sense_size_;
  CopyTo({response.data(), response_bytes}, request->chain.writable);
  const uint64_t written = response_bytes + request->data_in_written;
  queues_[request->queue]->Push(request->chain.head, static_cast<uint32_t>(written));
  moderation_[request->queue].OnCompleted(options_.now());
  InterruptSoon(request->queue);
  spare_.push_back(std::move(request));
  --in_flight_;
  OnIdle();
}

void ScsiController::ServeControl() {
  if (queues_[kControlQueue] == nullptr) return;
  Virtqueue& queue = *queues_[kControlQueue];
  Chain chain;
  for (int taken = 0; serving(); ++taken) {
    if (taken == kChainsPerRound) return rounds_.Add(kControlQueue);
    const absl::StatusOr<bool> popped = queue.Pop(chain);
    if (!popped.ok()) return Broken(WithContext(popped.status(), "control queue"));
    if (!*popped) {
      if (queue.EnableDoorbell()) continue;
      return;
    }
    const absl::Status started = StartControl(chain);
    if (!started.ok()) return Broken(WithContext(started, "control queue"));
  }
}

absl::Status ScsiController::StartControl(const Chain& chain) {
  std::array<uint8_t, scsi_wire::kControlTypeBytes> type{};
  if (!CopyFrom(chain.readable, type))
    return absl::InvalidArgumentError("a request without a type");
  switch (static_cast<scsi_wire::ControlType>(LoadLe<uint32_t>(type.data()))) {
    case scsi_wire::ControlType::kTaskManagement:
      return StartTaskManagement(chain);
    case scsi_wire::ControlType::kQuery:
    case scsi_wire::ControlType::kSubscribe:
      return AnswerNotification(chain);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a request of type ", LoadLe<uint32_t>(type.data())));
}

// Asynchronous notifications are of removable and multimedia devices (5.6.6.2.2): none here.
absl::Status ScsiController::AnswerNotification(const Chain& chain) {
  const std::array<uint8_t, scsi_wire::kNotificationResponseBytes> response = {
      0, 0, 0, 0, static_cast<uint8_t>(Response::kOk)};
  if (chain.readable_bytes < scsi_wire::kNotificationBytes || !CopyTo(response, chain.writable)) {
    return absl::InvalidArgumentError("a short notification request");
  }
  queues_[kControlQueue]->Push(chain.head, scsi_wire::kNotificationResponseBytes);
  InterruptSoon(kControlQueue);
  return absl::OkStatus();
}

absl::Status ScsiController::StartTaskManagement(const Chain& chain) {
  std::array<uint8_t, scsi_wire::kTaskManagementBytes> request{};
  if (!CopyFrom(chain.readable, request) || chain.writable_bytes == 0) {
    return absl::InvalidArgumentError("a short task management request");
  }
  task_management_.fetch_add(1, std::memory_order_relaxed);
  const auto subtype = LoadLe<uint32_t>(&request[scsi_wire::kTaskManagementSubtype]);
  const auto tag = LoadLe<uint64_t>(&request[scsi_wire::kTaskManagementTag]);
  const Address address = DecodeLun(std::span<const uint8_t, scsi_wire::kLunBytes>(
      &request[scsi_wire::kTaskManagementLun], scsi_wire::kLunBytes));
  ++in_flight_;
  const auto finish = [this, head = chain.head, writable = chain.writable](Response response) {
    const std::array<uint8_t, 1> byte = {static_cast<uint8_t>(response)};
    CopyTo(byte, writable);
    queues_[kControlQueue]->Push(head, 1);
    InterruptSoon(kControlQueue);
    --in_flight_;
    OnIdle();
  };
  if (!address.valid) {
    finish(Response::kBadTarget);
    return absl::OkStatus();
  }
  if (subtype > static_cast<uint32_t>(scsi_wire::TaskFunction::kQueryTaskSet)) {
    finish(Response::kFunctionRejected);
    return absl::OkStatus();
  }
  // The numbers are SAM's order of functions in both places.
  target_.Manage(static_cast<scsi::TaskFunction>(subtype), address.lun, tag,
                 [finish](scsi::TaskResponse response) {
                   switch (response) {
                     case scsi::TaskResponse::kComplete:
                       return finish(Response::kOk);
                     case scsi::TaskResponse::kSucceeded:
                       return finish(Response::kFunctionSucceeded);
                     case scsi::TaskResponse::kRejected:
                       return finish(Response::kFunctionRejected);
                     case scsi::TaskResponse::kIncorrectLun:
                       return finish(Response::kIncorrectLun);
                   }
                 });
  return absl::OkStatus();
}

void ScsiController::ServeEvents() {
  if (const absl::Status status = events_.OnDoorbell(); !status.ok()) {
    Broken(WithContext(status, "event queue"));
  }
}

uint64_t ScsiController::Announce(Change change, uint16_t lun, EventQueue::Done done) {
  ScsiEvent event;
  event.lun = EncodeLun(lun);
  switch (change) {
    case Change::kAdded:
      event.event = scsi_wire::kEventTransportReset;
      event.reason = scsi_wire::kReasonRescan;
      break;
    case Change::kRemoved:
      event.event = scsi_wire::kEventTransportReset;
      event.reason = scsi_wire::kReasonRemoved;
      break;
    case Change::kCapacity:
    case Change::kMedium:
      // ASC and ASCQ of CAPACITY DATA HAS CHANGED (5.6.6.3); drivers read everything anew.
      event.event = scsi_wire::kEventParamChange;
      event.reason = 0x2A | 0x09 << 8;
      break;
  }
  return events_.Send(event, std::move(done));
}

ScsiController::Counters ScsiController::counters() const {
  return {.requests = requests_.load(std::memory_order_relaxed),
          .task_management = task_management_.load(std::memory_order_relaxed)};
}

}  // namespace bothy::virtio
