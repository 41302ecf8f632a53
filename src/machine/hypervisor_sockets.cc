#include "machine/hypervisor_sockets.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/log.h"

namespace bothy::machine {
namespace {

constexpr char kName[] = "vsock0";
// "Communication controller", of no kind that PCI has a number for.
constexpr uint32_t kClassCommunication = 0x07'8000;

}  // namespace

HypervisorSockets::HypervisorSockets(const SocketsConfig& config, const DeviceHost& host,
                                     EventLoop& control)
    : config_(config), host_(host), control_(control), ports_(config.path) {}

HypervisorSockets::~HypervisorSockets() {
  if (counted_) host_.units.Remove(function_->registers());
  function_.reset();
  if (io_ == nullptr) return;
  io_->loop().PostAndWait([this] {
    listener_.reset();
    device_.reset();
  });
}

absl::StatusOr<std::unique_ptr<HypervisorSockets>> HypervisorSockets::Create(
    const SocketsConfig& config, const DeviceHost& host, EventLoop& control) {
  auto sockets = std::unique_ptr<HypervisorSockets>(new HypervisorSockets(config, host, control));
  RETURN_IF_ERROR(sockets->Open());
  return sockets;
}

absl::Status HypervisorSockets::Open() {
  ASSIGN_OR_RETURN(io_, IoThread::Create(absl::StrCat("io-", kName), {}));
  absl::Status status;
  io_->loop().PostAndWait([&] {
    device_ = std::make_unique<virtio::VsockDevice>(
        virtio::VsockDeviceOptions{.name = kName, .guest_cid = config_.guest_cid}, ports_,
        io_->loop());
    if (config_.path.empty()) return;
    auto listener = sockets::ConnectListener::Create(
        config_.path, io_->loop(),
        [this](uint32_t port, UniqueFd socket) { device_->Connect(port, std::move(socket)); });
    status = WithContext(listener.status(), "hvsocket_config.path");
    if (listener.ok()) listener_ = *std::move(listener);
  });
  RETURN_IF_ERROR(status);
  ASSIGN_OR_RETURN(function_, virtio::PciDevice::Create(*device_, kClassCommunication, io_->loop(),
                                                        host_.memory, host_.pci.endpoint_host()));
  host_.units.Add(function_->registers());
  counted_ = true;
  return host_.pci.AddIntegrated(function_->endpoint());
}

void HypervisorSockets::Modify(Change change, SocketConfig socket, ChangeDone done) {
  io_->loop().Post([this, change, socket = std::move(socket), done = std::move(done)] {
    control_.Post([done, status = Apply(change, socket)] { done(status); });
  });
}

absl::Status HypervisorSockets::Apply(Change change, const SocketConfig& socket) {
  switch (change) {
    case Change::kAdd:
      return WithContext(ports_.Add(socket.port, socket.path), "port");
    case Change::kUpdate:
      return WithContext(ports_.Update(socket.port, socket.path), "port");
    case Change::kRemove:
      break;
  }
  const std::optional<std::string> there = ports_.Listener(socket.port);
  if (there.has_value() && !socket.path.empty() && socket.path != *there) {
    return absl::InvalidArgumentError(absl::StrCat("listener_path: is \"", socket.path,
                                                   "\", but the port goes to \"", *there,
                                                   "\"; leave it out or name that one"));
  }
  return WithContext(ports_.Remove(socket.port), "port");
}

void HypervisorSockets::Inspect(inspect::Node& node) const {
  node.Child(kName, [this](inspect::Node& vsock) {
    vsock.Value("path", config_.path);
    function_->Inspect(vsock);
    vsock.Elsewhere("sockets", [this](inspect::Later later) {
      io_->loop().Post([this, later = std::move(later)] {
        later.Describe([this](inspect::Node& sockets) {
          device_->Inspect(sockets);
          sockets.Child("listeners", ports_);
          if (listener_ != nullptr) sockets.Child("connect_listener", *listener_);
        });
      });
    });
  });
}

}  // namespace bothy::machine
