#include "net/tap/tap_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "net/netlink/links.h"
#include "support/log.h"

namespace bothy::net {

absl::StatusOr<std::unique_ptr<Backend>> TapBackend::Create(TapDevice device,
                                                            std::optional<Bridge> bridge,
                                                            IoLoop& loop) {
  std::vector<int> watched = {device.index};
  if (bridge.has_value()) watched.push_back(bridge->index);
  auto backend =
      std::unique_ptr<TapBackend>(new TapBackend(std::move(device), std::move(bridge), loop));
  ASSIGN_OR_RETURN(backend->watch_,
                   LinkWatch::Create(watched, loop, [raw = backend.get()] { raw->OnLinkNews(); }));
  backend->link_up_.store(backend->FindLinkState(), std::memory_order_relaxed);
  ASSIGN_OR_RETURN(Links links, Links::Open());
  ASSIGN_OR_RETURN(backend->at_first_, links.StatisticsOf(backend->index_));
  RETURN_IF_ERROR(backend->UseQueuePairs(1));
  return backend;
}

TapBackend::TapBackend(TapDevice device, std::optional<Bridge> bridge, IoLoop& loop)
    : name_(std::move(device.name)),
      index_(device.index),
      made_(device.made),
      brought_up_(device.brought_up),
      has_uso_(device.has_uso),
      mtu_(device.mtu),
      bridge_(std::move(bridge)) {
  for (UniqueFd& fd : device.queues) {
    queues_.push_back(std::make_unique<TapQueue>(std::move(fd), loop, counters_));
  }
  pairs_in_use_ = queue_pairs();
}

TapBackend::~TapBackend() {
  // One that was moved elsewhere is somebody else's to look after, and its number may be, too.
  if (!brought_up_ || !in_sight_) return;
  absl::StatusOr<Links> links = Links::Open();
  const absl::Status down = links.ok() ? links->SetUp(index_, false, "") : links.status();
  if (down.ok()) return;
  LogWarning("net",
             absl::StrCat(description(), " was down and stays up: ", std::string(down.message())));
}

DeviceTotals TapBackend::Totals() const {
  const std::lock_guard lock(totals_mutex_);
  if (!in_sight_) return totals_;
  absl::StatusOr<Links> links = Links::Open();
  if (!links.ok()) return totals_;
  const absl::StatusOr<LinkStatistics> now = links->StatisticsOf(index_);
  if (!now.ok()) return totals_;
  // What the tap receives the guest has sent.
  totals_ = {.sent_frames = now->received_frames - at_first_.received_frames,
             .sent_bytes = now->received_bytes - at_first_.received_bytes,
             .sent_dropped = now->received_dropped - at_first_.received_dropped,
             .received_frames = now->sent_frames - at_first_.sent_frames,
             .received_bytes = now->sent_bytes - at_first_.sent_bytes,
             .received_dropped = now->sent_dropped - at_first_.sent_dropped};
  return totals_;
}

absl::Status TapBackend::UseQueuePairs(uint16_t pairs) {
  if (pairs == 0 || pairs > queue_pairs()) {
    return absl::InvalidArgumentError(absl::StrCat(
        description(), ": ", pairs, " queue pairs are out of range 1..", queue_pairs()));
  }
  // One at a time, so that what is in use is known whatever fails.
  uint16_t in_use = pairs_in_use_;
  while (in_use != pairs) {
    const bool more = in_use < pairs;
    TapQueue& queue = *queues_[more ? in_use : in_use - 1];
    RETURN_IF_ERROR(WithContext(UseTapQueue(queue.tap_fd(), more), description()));
    queue.SetInUse(more);
    in_use = static_cast<uint16_t>(more ? in_use + 1 : in_use - 1);
    pairs_in_use_ = in_use;
  }
  return absl::OkStatus();
}

Offloads TapBackend::offloads() const {
  return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .uso = has_uso_};
}

absl::Status TapBackend::SetReceiveOffloads(const Offloads& offloads) {
  return WithContext(SetTapOffloads(queues_.front()->tap_fd(), offloads, has_uso_), description());
}

bool TapBackend::FindLinkState() const {
  const LinkWatch::State& tap = watch_->state(index_);
  // One that is elsewhere is out of sight, but frames go through it; its new owner has the say.
  if (!tap.present) return !bridge_.has_value() && TapExists(queues_.front()->tap_fd());
  if (!tap.up) return false;
  return !bridge_.has_value() ||
         (tap.master == bridge_->index && watch_->state(bridge_->index).administratively_up);
}

void TapBackend::OnLinkNews() {
  in_sight_ = watch_->state(index_).present;
  const bool up = FindLinkState();
  if (link_up_.exchange(up, std::memory_order_relaxed) == up) return;
  LogInfo("net", absl::StrCat(description(), up ? ": link up" : ": link down"));
  if (on_link_change_) on_link_change_();
}

std::string TapBackend::description() const {
  return bridge_.has_value() ? absl::StrCat("port ", name_, " of bridge ", bridge_->name)
                             : absl::StrCat("tap ", name_);
}

void TapBackend::Inspect(inspect::Node& node) const {
  node.Value("backend", bridge_.has_value() ? "switch" : "tap");
  node.Value("tap", name_);
  node.Value("made_by_server", made_);
  if (bridge_.has_value()) node.Value("bridge", bridge_->name);
  node.Value("link_up", link_up());
  node.Value("mtu", mtu_);
  node.Value("queue_pairs", queue_pairs());
  node.Value("queue_pairs_in_use", pairs_in_use_.load(std::memory_order_relaxed));
  counters_.Inspect(node, Totals());
}

}  // namespace bothy::net
