// What the driver asks for over the control queue (virtio 1.2, 5.1.6.5). A command that wasn't
// negotiated, that doesn't exist or whose data is wrong isn't carried out.
#include <optional>
#include <utility>
#include <vector>

#include "support/endian.h"
#include "virtio/net/net_device.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {

using namespace net_wire;  // NOLINT(google-build-using-namespace): all of it is the wire's

bool NetDevice::Execute(uint8_t command_class, uint8_t command, std::span<const uint8_t> data) {
  switch (command_class) {
    case kClassReceive: {
      const bool extra = command > kReceiveAllMulticast;
      return Has(extra ? kFeatureControlReceiveExtra : kFeatureControlReceive) &&
             filter_.SetMode(command, data);
    }
    case kClassMac:
      if (command == kMacTableSet) return Has(kFeatureControlReceive) && filter_.SetTables(data);
      if (command != kMacAddressSet || !Has(kFeatureControlMac) || !filter_.SetOwnAddress(data)) {
        return false;
      }
      {
        const std::lock_guard lock(config_mutex_);
        config_mac_ = filter_.own_address();
      }
      return true;
    case kClassVlan:
      return Has(kFeatureControlVlan) && filter_.ChangeVlan(command, data);
    case kClassAnnounce: {
      if (command != kAnnounceAcknowledge || !Has(kFeatureGuestAnnounce)) return false;
      const std::lock_guard lock(config_mutex_);
      config_status_ &= static_cast<uint16_t>(~kStatusAnnounce);
      return true;
    }
    case kClassMultiqueue:
      // Of the two the last one counts (5.1.6.5.6).
      if (command == kMultiqueuePairsSet) return Has(kFeatureMultiqueue) && SetPairs(data);
      return command == kMultiqueueRss && Has(kFeatureRss) && SetSteering(data);
    case kClassGuestOffloads:
      return command == kGuestOffloadsSet && Has(kFeatureControlGuestOffloads) &&
             SetGuestOffloads(data);
    default:
      return false;
  }
}

bool NetDevice::SetPairs(std::span<const uint8_t> data) {
  if (data.size() != sizeof(uint16_t)) return false;
  const auto pairs = LoadLe<uint16_t>(data.data());
  if (pairs < 1 || pairs > max_pairs_) return false;
  return UsePairs(pairs, std::nullopt);
}

bool NetDevice::SetSteering(std::span<const uint8_t> data) {
  std::vector<bool> receive_queues;
  for (const Pair& pair : pairs_) receive_queues.push_back(pair.receive != nullptr);
  std::optional<ReceiveSteering> steering = ReceiveSteering::Parse(data, receive_queues);
  if (!steering.has_value()) return false;
  const uint16_t pairs = steering->transmit_queues();
  return UsePairs(pairs, std::move(steering));
}

bool NetDevice::UsePairs(uint16_t pairs, std::optional<ReceiveSteering> steering) {
  StopKernelPath();
  const uint16_t before = std::exchange(active_pairs_, pairs);
  steering_.swap(steering);
  const bool used = UseQueuePairs();
  if (!used) {
    active_pairs_ = before;
    steering_.swap(steering);
  }
  StartKernelPath();
  for (uint16_t i = 0; i < max_pairs_; ++i) {
    rounds_.Add(TransmitIndex(i));
    rounds_.Add(ReceiveIndex(i));
  }
  return used;
}

bool NetDevice::SetGuestOffloads(std::span<const uint8_t> data) {
  if (data.size() != sizeof(uint64_t)) return false;
  const auto offloads = LoadLe<uint64_t>(data.data());
  constexpr uint64_t kOffloads = kFeatureGuestChecksum | kFeatureGuestTso4 | kFeatureGuestTso6 |
                                 kFeatureGuestEcn | kFeatureGuestUso4 | kFeatureGuestUso6;
  // 5.1.6.5.7.2: no other bits than those negotiated.
  if ((offloads & ~(active_features_ & kOffloads)) != 0) return false;
  ApplyReceiveOffloads(ReceiveOffloads(offloads));
  return true;
}

}  // namespace bothy::virtio
