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
constexpr char kNoTap[] = "the backend isn't a tap, or its rate is limited";
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
  if (device->options_.kernel_path == KernelPath::kOff) {
    device->why_not_kernel_ = "it isn't asked for";
    return device;
  }
  if (device->backend_->queue(0).tap_fd() < 0) {
    device->why_not_kernel_ = kNoTap;
  } else if (absl::StatusOr<std::unique_ptr<VhostNet>> vhost = VhostNet::Open(); vhost.ok()) {
    device->kernel_.push_back(*std::move(vhost));
  } else {
    device->why_not_kernel_ = std::string(vhost.status().message());
    if (device->options_.kernel_path == KernelPath::kOn) return vhost.status();
    LogInfo(device->name(),
            absl::StrCat("frames take this process's own path: ", device->why_not_kernel_));
  }
  if (device->options_.kernel_path == KernelPath::kOn && !device->why_not_kernel_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("vhost-net can't serve it: ", device->why_not_kernel_));
  }
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
          // Those beyond the backend's last queue share it.
          for (uint16_t pair = i; pair < max_pairs_; ++pair) {
            if (pair % backend_->queue_pairs() == i) ServeTransmit(pair);
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
  ReadConfigFrom(config, offset, data);
  if (!looked) return;
  loop_.Post([self = self_] {
    if (*self != nullptr) (*self)->LookedAtStatus();
  });
}

uint16_t NetDevice::ControlQueue() const {
  return Has(kFeatureMultiqueue) ? static_cast<uint16_t>(2 * max_pairs_) : uint16_t{2};
}

uint16_t NetDevice::UsedPairs() const { return std::min(active_pairs_, backend_->queue_pairs()); }

void NetDevice::Activate(Transport& transport, uint64_t features,
                         std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  active_features_ = features;
  broken_ = false;
  active_pairs_ = 1;
  filter_ = ReceiveFilter(options_.mac);
  filter_.FilterVlans(Has(kFeatureControlVlan));
  // Without the control queue there is no way to ask for more than the NIC's own address.
  const ReceiveQueue::Options receive{.mergeable = Has(kFeatureMergeableBuffers),
                                      .checksums = Has(kFeatureGuestChecksum)};
  const uint16_t control = ControlQueue();
  const uint16_t pairs = Has(kFeatureMultiqueue) ? max_pairs_ : uint16_t{1};
  for (uint16_t i = 0; i < pairs; ++i) {
    std::unique_ptr<Virtqueue>& in = queues[ReceiveIndex(i)];
    std::unique_ptr<Virtqueue>& out = queues[TransmitIndex(i)];
    Pair& pair = pairs_[i];
    if (in != nullptr) {
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
  if (pair < UsedPairs()) ServeReceive(pair);
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
  const auto result = pair.receive->Serve(backend_->queue(index), filter_, kFramesPerRound);
  if (pair.receive->TakeInterrupt()) transport_->InterruptQueue(ReceiveIndex(index));
  if (!result.ok()) {
    return Broken(WithContext(result.status(), absl::StrCat("queue ", ReceiveIndex(index))));
  }
  if (*result == ReceiveQueue::Result::kMore) rounds_.Add(ReceiveIndex(index));
}

void NetDevice::ServeTransmit(uint16_t index) {
  Pair& pair = pairs_[index];
  if (!serving() || pair.transmit == nullptr || pair.in_kernel) return;
  // Frames of a queue that isn't in use go nowhere (5.1.6.5.6).
  const bool goes = link_wanted_ && index < active_pairs_;
  net::FrameQueue* const to =
      goes ? &backend_->queue(static_cast<uint16_t>(index % backend_->queue_pairs())) : nullptr;
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
    const uint64_t before = pair.received.frames;
    ServeReceive(index);
    pair.answered_at_once = pair.received.frames != before;
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
  why_not_kernel_ = options_.kernel_path == KernelPath::kOff ? "it isn't asked for"
                    : backend_->queue(0).tap_fd() < 0        ? kNoTap
                                                             : "";
  why_not_now_.clear();
  return backend;
}

// --- inspection ----------------------------------------------------------------------------------

void NetDevice::Inspect(inspect::Node& node) const {
  node.Value("data_path", kernel_path_active() ? "vhost-net" : "own");
  if (!kernel_path_active() && !(why_not_kernel_.empty() && why_not_now_.empty())) {
    node.Value("why_not_vhost", why_not_kernel_.empty() ? why_not_now_ : why_not_kernel_);
  }
  node.Value("vhost_starts", kernel_starts_);
  {
    const std::lock_guard lock(config_mutex_);
    node.Value("link_up", (config_status_ & kStatusLinkUp) != 0);
  }
  node.Value("mtu", mtu());
  node.Value("queue_pairs", max_pairs_);
  node.Value("queue_pairs_in_use", active_pairs_);
  node.Value("control_commands", control_commands_);
  node.Value("control_errors", control_errors_);
  const auto offloads = [&node](const char* name, const net::Offloads& these) {
    node.Child(name, [&these](inspect::Node& one) {
      one.Value("checksum", these.checksum);
      one.Value("tso4", these.tso4);
      one.Value("tso6", these.tso6);
      one.Value("ecn", these.ecn);
      one.Value("uso", these.uso);
    });
  };
  offloads("receive_offloads", receive_offloads_);
  offloads("transmit_offloads", SendOffloads(active_features_));
  node.Child("filter", [this](inspect::Node& filter) {
    filter.Value("promiscuous", filter_.promiscuous());
    filter.Value("all_multicast", filter_.all_multicast());
    filter.Value("unicast_addresses", filter_.unicast_addresses());
    filter.Value("multicast_addresses", filter_.multicast_addresses());
    filter.Value("vlans", filter_.vlans());
  });
  node.Child("pairs", [this](inspect::Node& pairs) {
    for (size_t i = 0; i < pairs_.size(); ++i) {
      pairs.Child(std::to_string(i), [&pair = pairs_[i]](inspect::Node& one) {
        one.Value("received_frames", pair.received.frames);
        one.Value("received_bytes", pair.received.bytes);
        one.Value("sent_frames", pair.sent.frames);
        one.Value("sent_bytes", pair.sent.bytes);
        one.Value("receive_starved", pair.received.starved);
        one.Value("transmit_blocked", pair.sent.blocked);
        one.Child("drops", [&pair](inspect::Node& drops) {
          drops.Value("receive_filtered", pair.received.filtered);
          drops.Value("receive_failed", pair.received.failed);
          for (size_t d = 0; d < kSendDrops; ++d) {
            drops.Value(absl::StrCat("transmit_", DropName(static_cast<SendDrop>(d))),
                        pair.sent.drops[d]);
          }
        });
      });
    }
  });
  node.Child("backend", *backend_);
}

}  // namespace bothy::virtio
