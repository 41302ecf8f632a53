#include "net/frame_counters.h"

namespace bothy::net {
namespace {

constexpr std::array<const char*, kDrops> kNames = {
    "runt",        "oversized",     "longer_than_buffers", "link_down",  "refused_by_host",
    "not_offered", "host_loopback", "too_many_flows",      "queue_full", "fragment",
};

}  // namespace

void FrameCounters::Inspect(inspect::Node& node) const {
  node.Value("sent_frames", sent_frames_.load(kRelaxed));
  node.Value("sent_bytes", sent_bytes_.load(kRelaxed));
  node.Value("received_frames", received_frames_.load(kRelaxed));
  node.Value("received_bytes", received_bytes_.load(kRelaxed));
  const auto drops = [](inspect::Node& directory, const std::array<Counter, kDrops>& counters) {
    for (size_t i = 0; i < kDrops; ++i) {
      if (const uint64_t count = counters[i].load(kRelaxed); count != 0) {
        directory.Value(kNames[i], count);
      }
    }
  };
  node.Child("send_drops", [&](inspect::Node& directory) { drops(directory, send_drops_); });
  node.Child("receive_drops", [&](inspect::Node& directory) { drops(directory, receive_drops_); });
}

}  // namespace bothy::net
