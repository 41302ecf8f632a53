// Tap devices (<linux/if_tun.h>): opening one, existing or new, and what it can do.
//
// Descriptors are non-blocking and speak `struct virtio_net_hdr_v1`, little-endian, in front of
// each frame.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/backend.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::net {

struct TapDevice {
  std::string name;
  int index = 0;                 // of the network device
  bool made = false;             // it wasn't there before, and goes with its last descriptor
  bool brought_up = false;       // it was there and down; not by OpenTap
  uint16_t mtu = 0;              // when it was opened
  bool has_uso = false;          // Linux 6.2: UDP segmentation
  std::vector<UniqueFd> queues;  // in use: all
};

// Names of the kernel's choosing end in "%d".
enum class TapName : uint8_t { kExact, kPattern };

// Opens tap `name` with `queue_pairs` queues, or one when it exists and has no more than that. It
// is left as it is, up or down, apart from offloads to the reader, of which none are on.
//
// InvalidArgument: no such name is possible, or it is a network device of another kind.
// FailedPrecondition: in use by another process, or the host has no /dev/net/tun.
// PermissionDenied: it isn't there and the process may not make it, or it is somebody else's.
absl::StatusOr<TapDevice> OpenTap(const std::string& name, TapName kind, uint16_t queue_pairs);

// Frames with these things left to do may be read from `queue`'s device from now on, as far as the
// kernel can.
absl::Status SetTapOffloads(int queue, const Offloads& offloads, bool has_uso);
// Frames go through this queue, or they don't.
absl::Status UseTapQueue(int queue, bool use);
// Whether the device of `queue` still exists, in whatever network namespace.
[[nodiscard]] bool TapExists(int queue);

}  // namespace bothy::net
