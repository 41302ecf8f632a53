#include "virtio/net/vhost_net.h"

#include <fcntl.h>
// What <linux/virtio_ring.h> has besides isn't C++.
#define VIRTIO_RING_NO_LEGACY
#include <linux/vhost.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "virtio/device.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

// Those of the driver's that the kernel must know of, if it has negotiated them.
constexpr uint64_t kNeeded = kFeatureVersion1 | net_wire::kFeatureMergeableBuffers |
                             kFeatureEventIndex | kFeatureIndirectDescriptors;

uint64_t HostAddress(const void* at) { return reinterpret_cast<uint64_t>(at); }

template <typename T>
absl::Status Call(int fd, unsigned long request, T* argument, const char* doing) {
  if (::ioctl(fd, request, argument) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("vhost-net: ", doing));
}

// struct vhost_memory, which ends in an array.
absl::Status SetMemory(int fd, const memory::GuestMemory& memory) {
  const std::vector<memory::GuestMemory::HostRegion> regions = memory.HostRegions();
  for (const auto& region : regions) {
    // The kernel would let the guest write to it.
    if (region.most == memory::Access::kWrite) continue;
    return absl::FailedPreconditionError(
        "vhost-net: the guest has memory that is read-only, which it can't be told of");
  }
  std::vector<uint8_t> bytes(sizeof(vhost_memory) + regions.size() * sizeof(vhost_memory_region));
  vhost_memory header{};
  header.nregions = static_cast<uint32_t>(regions.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  for (size_t i = 0; i < regions.size(); ++i) {
    vhost_memory_region region{};
    region.guest_phys_addr = regions[i].guest.base;
    region.memory_size = regions[i].guest.size;
    region.userspace_addr = HostAddress(regions[i].host);
    std::memcpy(bytes.data() + sizeof header + i * sizeof region, &region, sizeof region);
  }
  return Call(fd, VHOST_SET_MEM_TABLE, bytes.data(), "telling it of guest memory");
}

}  // namespace

absl::StatusOr<std::unique_ptr<VhostNet>> VhostNet::Open() {
  UniqueFd fd(::open("/dev/vhost-net", O_RDWR | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENXIO || errno == ENODEV) {
      return absl::FailedPreconditionError(absl::StrCat("/dev/vhost-net: ", std::strerror(errno),
                                                        "; load the host's module vhost_net"));
    }
    return ErrnoStatus(errno, "/dev/vhost-net");
  }
  UniqueFd error(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!error) return ErrnoStatus(errno, "eventfd for vhost-net");
  if (::ioctl(fd.get(), VHOST_SET_OWNER) != 0) return ErrnoStatus(errno, "vhost-net: owning it");
  uint64_t features = 0;
  RETURN_IF_ERROR(Call(fd.get(), VHOST_GET_FEATURES, &features, "asking for its features"));
  if ((features & kNeeded) != kNeeded) {
    return absl::FailedPreconditionError(
        absl::StrCat("vhost-net: the host's has features 0x", absl::Hex(features), ", and 0x",
                     absl::Hex(kNeeded), " are needed; use a newer kernel"));
  }
  return std::unique_ptr<VhostNet>(new VhostNet(std::move(fd), std::move(error), features));
}

absl::Status VhostNet::SetUp(uint32_t index, const Ring& ring) {
  CHECK(ring.queue->in_flight() == 0);
  vhost_vring_state state{.index = index, .num = ring.queue->size()};
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_VRING_NUM, &state, "sizing a ring"));
  state.num = ring.queue->next_available();
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_VRING_BASE, &state, "placing a ring's next entry"));
  const Virtqueue::Rings at = ring.queue->rings();
  vhost_vring_addr address{};
  address.index = index;
  address.desc_user_addr = HostAddress(at.descriptors);
  address.avail_user_addr = HostAddress(at.available);
  address.used_user_addr = HostAddress(at.used);
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_VRING_ADDR, &address, "placing a ring"));
  vhost_vring_file file{.index = index, .fd = ring.interrupt};
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_VRING_CALL, &file, "handing over an interrupt"));
  file.fd = error_.get();
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_VRING_ERR, &file, "handing over an event"));
  file.fd = ring.doorbell;
  return Call(fd_.get(), VHOST_SET_VRING_KICK, &file, "handing over a doorbell");
}

absl::Status VhostNet::Start(const memory::GuestMemory& memory, uint64_t features,
                             const std::array<Ring, 2>& rings, int tap_fd) {
  rings_ = rings;  // none of them is the kernel's before the first of the calls below
  uint64_t both = features & features_ & kNeeded;
  RETURN_IF_ERROR(Call(fd_.get(), VHOST_SET_FEATURES, &both, "setting features"));
  RETURN_IF_ERROR(SetMemory(fd_.get(), memory));
  for (uint32_t i = 0; i < rings_.size(); ++i) RETURN_IF_ERROR(SetUp(i, rings_[i]));
  for (uint32_t i = 0; i < rings_.size(); ++i) {
    vhost_vring_file file{.index = i, .fd = tap_fd};
    RETURN_IF_ERROR(Call(fd_.get(), VHOST_NET_SET_BACKEND, &file, "handing over the tap"));
  }
  // What was put there before it looked counts as rung.
  for (const Ring& ring : rings_) ::eventfd_write(ring.doorbell, 1);
  return absl::OkStatus();
}

void VhostNet::Stop() {
  for (uint32_t i = 0; i < rings_.size(); ++i) {
    vhost_vring_file file{.index = i, .fd = -1};
    // Fails when there has been no tap yet. Returns when the kernel's thread has let go.
    (void)::ioctl(fd_.get(), VHOST_NET_SET_BACKEND, &file);
    (void)::ioctl(fd_.get(), VHOST_SET_VRING_KICK, &file);
    (void)::ioctl(fd_.get(), VHOST_SET_VRING_CALL, &file);
  }
  // Not where the kernel says: it is past a chain that it found wrong and keeps.
  for (const Ring& ring : rings_) {
    if (ring.queue != nullptr) ring.queue->ContinueAtUsed();
  }
  rings_ = {};
  // What was wrong with these rings isn't the next ones' fault.
  eventfd_t errors = 0;
  (void)::eventfd_read(error_.get(), &errors);
}

}  // namespace bothy::virtio
