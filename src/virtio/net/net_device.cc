#include "virtio/net/net_device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/log.h"
#include "virtio/net/wire.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace): all of it is the wire's

// A frame of many segments takes forty receive buffers of a driver that makes them small.
constexpr uint16_t kReceiveQueueSize = 1024;
constexpr uint16_t kTransmitQueueSize = 256;
constexpr uint16_t kControlQueueSize = 64;
// Taken off one queue in one round of the loop, so that others and a pause get their turn.
constexpr int kFramesPerRound = 64;
// Some stop and start the kernel's path.
constexpr int kCommandsPerRound = 8;
// A table of addresses is the longest command; longer ones than any driver's are refused.
constexpr size_t kMostCommandBytes = size_t{64} * 1024;
// What may stand in front of the payload without offloads: addresses, type, two VLAN tags.
constexpr size_t kLinkHeaderBytes = 14 + size_t{2} * 4;

}  // namespace

absl::StatusOr<std::unique_ptr<NetDevice>> NetDevice::Create(NetDeviceOptions options,
                                                             std::unique_ptr<net::Backend> backend,
                                                             const memory::GuestMemory& memory,
                                                             IoLoop& loop) {
  CHECK((options.mac[0] & 1) == 0);
  auto device = std::unique_ptr<NetDevice>(
      new NetDevice(std::move(options), std::move(backend), memory, loop));
  RETURN_IF_ERROR(device->OpenKernelPath());
  // The kernel's path can't steer by what the driver says.
  if (!device->why_not_kernel_.empty() && device->max_pairs_ > 1) device->features_ |= kFeatureRss;
  return device;
}

NetDevice::NetDevice(NetDeviceOptions options, std::unique_ptr<net::Backend> backend,
                     const memory::GuestMemory& memory, IoLoop& loop)
    : options_(std::move(options)),
      backend_(std::move(backend)),
      memory_(memory),
      loop_(loop),
      max_pairs_(std::min(backend_->queue_pairs(), kMaxNetQueuePairs)),
      features_(OfferedFeatures()),
      config_mtu_(backend_->mtu()),
      config_mac_(options_.mac),
      pairs_(max_pairs_),
      filter_(options_.mac),
      rounds_(loop, [this](uint16_t queue) { OnDoorbell(queue); }),
      self_(std::make_shared<NetDevice*>(this)) {
  for (uint16_t i = 0; i < max_pairs_; ++i) {
    queue_sizes_.push_back(kReceiveQueueSize);
    queue_sizes_.push_back(kTransmitQueueSize);
  }
  queue_sizes_.push_back(kControlQueueSize);
  kernel_errors_.resize(max_pairs_);
  AttachBackend();
}

NetDevice::~NetDevice() {
  CHECK(transport_ == nullptr);
  *self_ = nullptr;
}

uint64_t NetDevice::OfferedFeatures() const {
  uint64_t features = kFeatureMac | kFeatureStatus | kFeatureMtu | kFeatureMergeableBuffers |
                      kFeatureControlQueue | kFeatureControlReceive | kFeatureControlReceiveExtra |
                      kFeatureControlVlan | kFeatureControlMac | kFeatureGuestAnnounce;
  if (max_pairs_ > 1) features |= kFeatureMultiqueue;
  const net::Offloads offloads = backend_->offloads();
  if (offloads.checksum) {
    // What a backend takes it can also give.
    features |= kFeatureChecksum | kFeatureGuestChecksum | kFeatureControlGuestOffloads;
    if (offloads.tso4) features |= kFeatureHostTso4 | kFeatureGuestTso4;
    if (offloads.tso6) features |= kFeatureHostTso6 | kFeatureGuestTso6;
    if (offloads.ecn) features |= kFeatureHostEcn | kFeatureGuestEcn;
    if (offloads.uso) features |= kFeatureHostUso | kFeatureGuestUso4 | kFeatureGuestUso6;
  }
  return features;
}

net::Offloads NetDevice::ReceiveOffloads(uint64_t features) {
  const auto has = [features](uint64_t feature) { return (features & feature) == feature; };
  net::Offloads offloads;
  offloads.checksum = has(kFeatureGuestChecksum);
  offloads.tso4 = offloads.checksum && has(kFeatureGuestTso4);
  offloads.tso6 = offloads.checksum && has(kFeatureGuestTso6);
  offloads.ecn = (offloads.tso4 || offloads.tso6) && has(kFeatureGuestEcn);
  offloads.uso = offloads.checksum && has(kFeatureGuestUso4 | kFeatureGuestUso6);
  return offloads;
}

net::Offloads NetDevice::SendOffloads(uint64_t features) {
  const auto has = [features](uint64_t feature) { return (features & feature) != 0; };
  net::Offloads offloads;
  offloads.checksum = has(kFeatureChecksum);
  offloads.tso4 = offloads.checksum && has(kFeatureHostTso4);
  offloads.tso6 = offloads.checksum && has(kFeatureHostTso6);
  offloads.ecn = (offloads.tso4 || offloads.tso6) && has(kFeatureHostEcn);
  offloads.uso = offloads.checksum && has(kFeatureHostUso);
  return offloads;
}

void NetDevice::AttachBackend() {
  for (uint16_t i = 0; i < std::min(backend_->queue_pairs(), max_pairs_); ++i) {
    backend_->queue(i).SetCallbacks(
        [this, i] {
          pairs_[i].answered_at_once = true;  // perhaps
          if (i < UsedPairs()) ServeReceive(i);
        },
        [this, i] {
          // Pairs beyond the last one in use share its queues.
          for (uint16_t pair = i; pair < max_pairs_; ++pair) {
            if (pair % UsedPairs() == i) ServeTransmit(pair);
          }
        });
  }
  backend_->SetLinkCallback([this] {
    ShowLink(/*announce=*/false);
    ServeAll();
  });
  const std::lock_guard lock(config_mutex_);
  config_status_ = link_wanted_ && backend_->link_up() ? kStatusLinkUp : 0;
}

uint16_t NetDevice::mtu() const {
  const std::lock_guard lock(config_mutex_);
  return config_mtu_;
}

void NetDevice::ReadConfig(uint64_t offset, std::span<uint8_t> data) {
  std::array<uint8_t, kConfigBytes> config{};
  bool looked = false;
  {
    const std::lock_guard lock(config_mutex_);
    std::copy(config_mac_.begin(), config_mac_.end(), &config[kConfigMac]);
    StoreLe<uint16_t>(&config[kConfigStatus], config_status_);
    StoreLe<uint16_t>(&config[kConfigMtu], config_mtu_);
    if (tell_when_read_ && offset <= kConfigStatus && offset + data.size() > kConfigStatus) {
      looked = std::exchange(tell_when_read_, false);
    }
  }
  StoreLe<uint16_t>(&config[kConfigMaxPairs], max_pairs_);
  if ((features_ & kFeatureRss) != 0) {
    config[kConfigMostKeyBytes] = ReceiveSteering::kMostKeyBytes;
    StoreLe<uint16_t>(&config[kConfigMostTableEntries], ReceiveSteering::kMostTableEntries);
    StoreLe<uint32_t>(&config[kConfigHashTypes], kHashTypes);
  }
  ReadConfigFrom(config, offset, data);
  if (!looked) return;
  loop_.Post([self = self_] {
    if (*self != nullptr) (*self)->LookedAtStatus();
  });
}

bool NetDevice::HasPairs() const { return Has(kFeatureMultiqueue) || Has(kFeatureRss); }

uint16_t NetDevice::ControlQueue() const {
  return HasPairs() ? static_cast<uint16_t>(2 * max_pairs_) : uint16_t{2};
}

uint16_t NetDevice::UsedPairs() const {
  const uint16_t used = std::min(active_pairs_, backend_->queue_pairs());
  if (!steering_.has_value()) return used;
  // A driver that steers may send through pairs that it doesn't receive through.
  uint16_t received = 1;
  while (received < used && pairs_[received].receive != nullptr) ++received;
  return received;
}

void NetDevice::Activate(Transport& transport, uint64_t features,
                         std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  active_features_ = features;
  broken_ = false;
  active_pairs_ = 1;
  steering_.reset();
  filter_ = ReceiveFilter(options_.mac);
  filter_.FilterVlans(Has(kFeatureControlVlan));
  // Without the control queue there is no way to ask for more than the NIC's own address.
  ReceiveQueue::Options receive{.mergeable = Has(kFeatureMergeableBuffers),
                                .checksums = Has(kFeatureGuestChecksum)};
  const uint16_t control = ControlQueue();
  const uint16_t pairs = HasPairs() ? max_pairs_ : uint16_t{1};
  for (uint16_t i = 0; i < pairs; ++i) {
    std::unique_ptr<Virtqueue>& in = queues[ReceiveIndex(i)];
    std::unique_ptr<Virtqueue>& out = queues[TransmitIndex(i)];
    Pair& pair = pairs_[i];
    if (in != nullptr) {
      receive.index = ReceiveIndex(i);
      pair.receive = std::make_unique<ReceiveQueue>(std::move(in), receive, pair.received);
    }
    if (out != nullptr) {
      pair.transmit =
          std::make_unique<TransmitQueue>(std::move(out), SendOffloads(features), pair.sent);
    }
  }
  if (Has(kFeatureControlQueue)) control_ = std::move(queues[control]);
  ApplyReceiveOffloads(ReceiveOffloads(features));
  UseQueuePairs();
  if (!quiesced_) Resume();
}

void NetDevice::ApplyReceiveOffloads(const net::Offloads& offloads) {
  receive_offloads_ = offloads;
  if (const absl::Status status = backend_->SetReceiveOffloads(offloads); !status.ok()) {
    log_.Log(LogLevel::kWarning, name(), std::string(status.message()));
  }
  const bool segments = offloads.tso4 || offloads.tso6 || offloads.uso;
  const size_t longest =
      segments ? net::kLargestFrame : std::max(mtu(), backend_->mtu()) + kLinkHeaderBytes;
  for (Pair& pair : pairs_) {
    if (pair.receive != nullptr) pair.receive->SetLongestFrame(longest);
  }
}

bool NetDevice::UseQueuePairs() {
  const absl::Status status = backend_->UseQueuePairs(UsedPairs());
  if (!status.ok()) log_.Log(LogLevel::kWarning, name(), std::string(status.message()));
  return status.ok();
}

void NetDevice::OnDoorbell(uint16_t queue) {
  if (!serving()) return;
  if (queue == ControlQueue()) return ServeControl();
  const auto pair = static_cast<uint16_t>(queue / 2);
  if (pair >= max_pairs_) return;
  if (queue == TransmitIndex(pair)) return ServeTransmit(pair);
  const uint16_t used = UsedPairs();
  if (pair < used) ServeReceive(pair);
  if (!steering_.has_value()) return;
  // What came in through other queues may wait for this one's buffers.
  for (uint16_t i = 0; i < used; ++i) {
    if (i != pair && pairs_[i].receive != nullptr && pairs_[i].receive->frame_waits()) {
      ServeReceive(i);
    }
  }
}

void NetDevice::Resume() {
  quiesced_ = false;
  why_not_now_.clear();
  if (!serving()) return;
  StartKernelPath();
  ServeAll();
}

void NetDevice::ServeAll() {
  for (uint16_t pair = 0; pair < max_pairs_; ++pair) {
    ServeTransmit(pair);
    if (pair < UsedPairs()) ServeReceive(pair);
  }
  ServeControl();
}

void NetDevice::Quiesce(std::function<void()> done) {
  StopKernelPath();
  quiesced_ = true;
  for (Pair& pair : pairs_) {
    if (pair.receive != nullptr) pair.receive->GiveBack();
    if (pair.transmit != nullptr) pair.transmit->GiveBack();
  }
  done();
}

void NetDevice::Reset(std::function<void()> done) {
  StopKernelPath();
  transport_ = nullptr;
  active_features_ = 0;
  control_.reset();
  for (Pair& pair : pairs_) {
    pair.receive.reset();
    pair.transmit.reset();
  }
  broken_ = false;
  kernel_failed_ = false;
  active_pairs_ = 1;
  steering_.reset();
  filter_ = ReceiveFilter(options_.mac);
  {
    const std::lock_guard lock(config_mutex_);
    config_mac_ = options_.mac;
    config_status_ &= static_cast<uint16_t>(~kStatusAnnounce);
    config_mtu_ = backend_->mtu();
  }
  StopWaitingForDriver();
  done();
}

void NetDevice::Broken(const absl::Status& reason) {
  StopKernelPath();
  broken_ = true;
  transport_->NeedsReset(reason);
}

void NetDevice::ServeReceive(uint16_t index) {
  Pair& pair = pairs_[index];
  if (!serving() || pair.receive == nullptr || pair.in_kernel) return;
  ReceiveQueue::Steering steer;
  if (steering_.has_value()) {
    steer = [this](std::span<const uint8_t> start) -> ReceiveQueue& {
      return *pairs_[steering_->PairOf(start)].receive;
    };
  }
  const auto result = pair.receive->Serve(backend_->queue(index), filter_, steer, kFramesPerRound);
  for (uint16_t i = 0; i < max_pairs_; ++i) {
    if (i != index && !steering_.has_value()) continue;
    if (pairs_[i].receive != nullptr && pairs_[i].receive->TakeInterrupt()) {
      transport_->InterruptQueue(ReceiveIndex(i));
    }
  }
  if (!result.ok()) return Broken(result.status());
  if (*result == ReceiveQueue::Result::kMore) rounds_.Add(ReceiveIndex(index));
}

void NetDevice::ServeTransmit(uint16_t index) {
  Pair& pair = pairs_[index];
  if (!serving() || pair.transmit == nullptr || pair.in_kernel) return;
  // Frames of a queue that isn't in use go nowhere (5.1.6.5.6).
  const bool goes = link_wanted_ && index < active_pairs_;
  net::FrameQueue* const to =
      goes ? &backend_->queue(static_cast<uint16_t>(index % UsedPairs())) : nullptr;
  const auto result = pair.transmit->Serve(to, backend_->offloads(), kFramesPerRound);
  // At once, since TCP sends the next only when it has some of this back.
  if (pair.transmit->TakeInterrupt()) transport_->InterruptQueue(TransmitIndex(index));
  if (!result.ok()) {
    return Broken(WithContext(result.status(), absl::StrCat("queue ", TransmitIndex(index))));
  }
  const bool looks_again = *result == TransmitQueue::Result::kLookAgain;
  if (looks_again || *result == TransmitQueue::Result::kMore) rounds_.Add(TransmitIndex(index));
  if (looks_again && index < UsedPairs() && pair.answered_at_once) {
    // The answer of one nearby is there already, as the last one was.
    const auto taken = [&pair] { return pair.received.frames + pair.received.handed_on; };
    const uint64_t before = taken();
    ServeReceive(index);
    pair.answered_at_once = taken() != before;
  }
}

void NetDevice::ServeControl() {
  if (!serving() || control_ == nullptr) return;
  for (int taken = 0; serving(); ++taken) {
    if (taken == kCommandsPerRound) {
      rounds_.Add(ControlQueue());
      break;
    }
    const absl::StatusOr<bool> popped = control_->Pop(control_chain_);
    if (!popped.ok()) return Broken(WithContext(popped.status(), "control queue"));
    if (!*popped) {
      if (control_->EnableDoorbell()) continue;
      break;
    }
    if (const absl::Status answered = Answer(control_chain_); !answered.ok()) {
      return Broken(WithContext(answered, "control queue"));
    }
  }
  if (serving() && control_->ShouldInterrupt()) transport_->InterruptQueue(ControlQueue());
}

absl::Status NetDevice::Answer(const Chain& chain) {
  if (chain.readable_bytes < kControlHeaderBytes || chain.writable_bytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a command of ", chain.readable_bytes,
                                                   " bytes with ", chain.writable_bytes,
                                                   " for the answer"));
  }
  bool carried_out = false;
  if (chain.readable_bytes <= kMostCommandBytes) {
    command_.resize(chain.readable_bytes);
    (void)CopyFrom(chain.readable, command_);
    carried_out =
        Execute(command_[0], command_[1], std::span(command_).subspan(kControlHeaderBytes));
  }
  ++control_commands_;
  if (!carried_out) ++control_errors_;
  const std::array<uint8_t, 1> answer = {carried_out ? kControlOk : kControlError};
  (void)CopyTo(answer, chain.writable);
  control_->Push(chain.head, 1);
  return absl::OkStatus();
}

// --- link --------------------------------------------------------------------------------------

void NetDevice::ShowLink(bool announce) {
  const bool up = link_wanted_ && backend_->link_up();
  {
    const std::lock_guard lock(config_mutex_);
    uint16_t status = up ? kStatusLinkUp : 0;
    if (up && (announce || (config_status_ & kStatusAnnounce) != 0) && Has(kFeatureGuestAnnounce)) {
      status |= kStatusAnnounce;
    }
    if (status == config_status_) return;
    config_status_ = status;
  }
  if (transport_ != nullptr) transport_->ConfigChanged();
}

void NetDevice::SetLink(bool wanted, std::function<void()> seen) {
  StopWaitingForDriver();
  link_wanted_ = wanted;
  // A driver that doesn't know of the link, or doesn't run, won't look.
  const bool looks = serving() && Has(kFeatureStatus) && seen != nullptr;
  if (looks) {
    const std::lock_guard lock(config_mutex_);
    tell_when_read_ = true;
    on_seen_ = std::move(seen);
  }
  ShowLink(/*announce=*/wanted);
  if (wanted) {
    StartKernelPath();
    ServeAll();
  } else {
    StopKernelPath();
  }
  if (!looks && seen != nullptr) seen();  // NOLINT(bugprone-use-after-move): only if it wasn't
}

void NetDevice::LookedAtStatus() {
  if (on_seen_ != nullptr) std::exchange(on_seen_, nullptr)();
}

void NetDevice::StopWaitingForDriver() {
  {
    const std::lock_guard lock(config_mutex_);
    tell_when_read_ = false;
  }
  LookedAtStatus();
}

std::unique_ptr<net::Backend> NetDevice::ExchangeBackend(std::unique_ptr<net::Backend> backend) {
  CHECK(!link_wanted_);
  StopKernelPath();
  kernel_.clear();
  for (Pair& pair : pairs_) {
    if (pair.receive != nullptr) pair.receive->ForgetFrame();
  }
  std::swap(backend_, backend);
  AttachBackend();
  if (transport_ != nullptr) {
    ApplyReceiveOffloads(receive_offloads_);
    UseQueuePairs();
    if (backend_->link_up() && backend_->mtu() < mtu()) {
      LogWarning(name(), absl::StrCat("its driver was told of frames of ", mtu(), " bytes, and ",
                                      backend_->description(), " takes ", backend_->mtu(),
                                      ": set that MTU in the guest"));
    }
  } else {
    const std::lock_guard lock(config_mutex_);
    config_mtu_ = backend_->mtu();
  }
  LookForTap();
  return backend;
}

}  // namespace bothy::virtio
