// What the state tree shows of a network card.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "virtio/net/net_device.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {

using namespace net_wire;  // NOLINT(google-build-using-namespace): all of it is the wire's

void NetDevice::InspectSteering(inspect::Node& node) const {
  // Who chooses the receive queue of a frame.
  node.Value("receive_steering", steering_.has_value() ? "driver" : "host");
  if (!steering_.has_value()) return;
  node.Child("rss", [&steering = *steering_](inspect::Node& rss) {
    const uint32_t types = steering.hash_types();
    rss.Child("hash_types", [types](inspect::Node& each) {
      each.Value("ipv4", (types & kHashIpv4) != 0);
      each.Value("tcp4", (types & kHashTcp4) != 0);
      each.Value("udp4", (types & kHashUdp4) != 0);
      each.Value("ipv6", (types & kHashIpv6) != 0);
      each.Value("tcp6", (types & kHashTcp6) != 0);
      each.Value("udp6", (types & kHashUdp6) != 0);
    });
    rss.Value("table", absl::StrJoin(steering.table(), " "));
    rss.Value("unclassified", steering.unclassified());
  });
}

void NetDevice::Inspect(inspect::Node& node) const {
  node.Value("data_path", kernel_path_active() ? "vhost-net" : "own");
  if (const std::string why = WhyNotKernel(); !kernel_path_active() && !why.empty()) {
    node.Value("why_not_vhost", why);
  }
  node.Value("vhost_starts", kernel_starts_);
  {
    const std::lock_guard lock(config_mutex_);
    node.Value("link_up", (config_status_ & kStatusLinkUp) != 0);
  }
  node.Value("mtu", mtu());
  node.Value("queue_pairs", max_pairs_);
  node.Value("queue_pairs_in_use", active_pairs_);
  InspectSteering(node);
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
        one.Value("handed_on_frames", pair.received.handed_on);
        one.Value("receive_starved", pair.received.starved);
        one.Value("transmit_blocked", pair.sent.blocked);
        one.Child("drops", [&pair](inspect::Node& drops) {
          drops.Value("receive_filtered", pair.received.filtered);
          drops.Value("receive_failed", pair.received.failed);
          drops.Value("receive_too_long", pair.received.too_long);
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
