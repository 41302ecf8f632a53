// The kernel's data path of a NetDevice: pairs are lent to vhost-net, which moves their frames
// between rings and tap by itself, and taken back. Pairs beyond the backend's queues stay with the
// device's own path: their driver may send through them, and those frames share the backend's
// queues.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/log.h"
#include "virtio/net/net_device.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {

using namespace net_wire;  // NOLINT(google-build-using-namespace): all of it is the wire's

absl::Status NetDevice::OpenKernelPath() {
  LookForTap();
  if (options_.kernel_path == KernelPath::kOff) return absl::OkStatus();
  if (why_not_kernel_.empty()) {
    absl::StatusOr<std::unique_ptr<VhostNet>> vhost = VhostNet::Open();
    if (vhost.ok()) {
      kernel_.push_back(*std::move(vhost));
      return absl::OkStatus();
    }
    why_not_kernel_ = std::string(vhost.status().message());
    if (options_.kernel_path == KernelPath::kOn) return vhost.status();
    LogInfo(name(), absl::StrCat("frames take this process's own path: ", why_not_kernel_));
    return absl::OkStatus();
  }
  if (options_.kernel_path == KernelPath::kAuto) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("vhost-net can't serve it: ", why_not_kernel_));
}

void NetDevice::LookForTap() {
  why_not_kernel_ = options_.kernel_path == KernelPath::kOff ? "it isn't asked for"
                    : backend_->queue(0).tap_fd() < 0
                        ? "the backend isn't a tap, or its rate is limited"
                        : "";
  why_not_now_.clear();
}

std::string NetDevice::WhyNotKernel() const {
  if (!why_not_kernel_.empty()) return why_not_kernel_;
  if (!why_not_now_.empty()) return why_not_now_;
  return steering_.has_value() ? "the driver steers frames by their flows (RSS)" : "";
}

bool NetDevice::kernel_path_active() const {
  return std::any_of(pairs_.begin(), pairs_.end(), [](const Pair& pair) { return pair.in_kernel; });
}

bool NetDevice::KernelMayServe() const {
  // Without mergeable buffers the kernel leaves num_buffers as it finds it.
  return serving() && link_wanted_ && why_not_kernel_.empty() && why_not_now_.empty() &&
         !kernel_failed_ && !steering_.has_value() && Has(kFeatureMergeableBuffers) &&
         !kernel_path_active();
}

void NetDevice::StartKernelPath() {
  if (!KernelMayServe()) return;
  for (uint16_t i = 0; i < UsedPairs(); ++i) {
    const absl::Status status = StartKernelPair(i);
    if (status.ok()) continue;
    StopKernelPath();
    why_not_now_ = std::string(status.message());
    log_.Log(LogLevel::kWarning, name(),
             absl::StrCat("frames take this process's own path: ", why_not_now_));
    return;
  }
  if (kernel_path_active()) ++kernel_starts_;
}

absl::Status NetDevice::StartKernelPair(uint16_t index) {
  Pair& pair = pairs_[index];
  if (pair.receive == nullptr || pair.transmit == nullptr) return absl::OkStatus();
  while (kernel_.size() <= index) {
    ASSIGN_OR_RETURN(kernel_.emplace_back(), VhostNet::Open());
  }
  pair.receive->GiveBack();
  pair.transmit->GiveBack();
  VhostNet& vhost = *kernel_[index];
  pair.in_kernel = true;
  std::array<VhostNet::Ring, 2> rings;
  const std::array<Virtqueue*, 2> queues = {&pair.receive->virtqueue(),
                                            &pair.transmit->virtqueue()};
  for (uint16_t i = 0; i < 2; ++i) {
    const auto queue = static_cast<uint16_t>(ReceiveIndex(index) + i);
    rings[i].queue = queues[i];
    ASSIGN_OR_RETURN(rings[i].interrupt, transport_->InterruptEvent(queue));
    rings[i].doorbell = transport_->LendDoorbell(queue);
  }
  kernel_errors_[index] = loop_.WatchEvent(vhost.error_fd(), [this] { OnKernelError(); });
  return vhost.Start(memory_, active_features_, rings, backend_->queue(index).tap_fd());
}

void NetDevice::StopKernelPath() {
  for (uint16_t index = 0; index < max_pairs_; ++index) {
    if (!std::exchange(pairs_[index].in_kernel, false)) continue;
    kernel_[index]->Stop();
    kernel_errors_[index].reset();
    transport_->ReturnDoorbell(ReceiveIndex(index));
    transport_->ReturnDoorbell(TransmitIndex(index));
    // Those who were told of nothing since.
    transport_->InterruptQueue(ReceiveIndex(index));
    transport_->InterruptQueue(TransmitIndex(index));
  }
}

// Whether it is the driver's doing our own path finds out, and says so precisely.
void NetDevice::OnKernelError() {
  if (!kernel_path_active()) return;
  // The watch that calls this goes with the path.
  loop_.Post([self = self_] {
    if (*self == nullptr || !(*self)->kernel_path_active()) return;
    NetDevice& device = **self;
    device.StopKernelPath();
    device.kernel_failed_ = true;
    device.log_.Log(LogLevel::kWarning, device.name(),
                    "vhost-net found a ring or a chain wrong: own path until a reset");
    device.ServeAll();
  });
}

void NetDevice::MemoryChanged() {
  // What stood in its way may have gone with the memory.
  why_not_now_.clear();
  if (!serving()) return;
  StopKernelPath();
  StartKernelPath();
  ServeAll();
}

}  // namespace bothy::virtio
