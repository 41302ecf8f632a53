#include "net/frame_counters.h"

namespace bothy::net {
namespace {

constexpr std::array<const char*, kDrops> kNames = {
    "runt",        "oversized",     "longer_than_buffers", "link_down",  "refused_by_host",
    "not_offered", "host_loopback", "too_many_flows",      "queue_full", "fragment",
};

}  // namespace

void FrameCounters::Inspect(inspect::Node& node, const std::optional<DeviceTotals>& totals) const {
  const DeviceTotals own = {.sent_frames = sent_frames_.load(kRelaxed),
                            .sent_bytes = sent_bytes_.load(kRelaxed),
                            .sent_dropped = 0,
                            .received_frames = received_frames_.load(kRelaxed),
                            .received_bytes = received_bytes_.load(kRelaxed),
                            .received_dropped = 0};
  const DeviceTotals& shown = totals ? *totals : own;
  node.Value("sent_frames", shown.sent_frames);
  node.Value("sent_bytes", shown.sent_bytes);
  node.Value("received_frames", shown.received_frames);
  node.Value("received_bytes", shown.received_bytes);
  const auto drops = [](inspect::Node& directory, const std::array<Counter, kDrops>& counters,
                        uint64_t by_device) {
    if (by_device != 0) directory.Value("by_device", by_device);
    for (size_t i = 0; i < kDrops; ++i) {
      if (const uint64_t count = counters[i].load(kRelaxed); count != 0) {
        directory.Value(kNames[i], count);
      }
    }
  };
  node.Child("send_drops",
             [&](inspect::Node& directory) { drops(directory, send_drops_, shown.sent_dropped); });
  node.Child("receive_drops", [&](inspect::Node& directory) {
    drops(directory, receive_drops_, shown.received_dropped);
  });
}

}  // namespace bothy::net
