// NetworkCards: the network cards of a machine: virtio-net functions on root ports, each with a
// backend and a thread of its own.
//
// Threads: AddConfigured on the life-cycle thread before the machine runs; Modify and MemoryChanged
// on that of `changes`; Inspect on any; destruction when none happens any more.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <vector>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "machine/machine.h"

namespace bothy::machine {

class NetworkCards {
 public:
  NetworkCards(const DeviceHost& host, std::map<Guid, NicTuning> tuning);
  // Closes every backend. The functions are detached from their buses.
  ~NetworkCards();
  NetworkCards(const NetworkCards&) = delete;
  NetworkCards& operator=(const NetworkCards&) = delete;

  // Errors begin with "devices_config.nic_config[N].".
  absl::Status AddConfigured(const std::vector<NicConfig>& nics);
  // As Machine::ModifyNic, but on the thread of `changes`, where `done` is called, too.
  void Modify(Change change, const NicConfig& nic, const std::stop_token& stop,
              const ChangeDone& done);
  // The guest has other memory than before that it can name to devices.
  void MemoryChanged();
  // A directory for each: "net0".
  void Inspect(inspect::Node& node) const;

 private:
  class Card;
  absl::Status Add(const NicConfig& nic);
  void Remove(const Guid& id, const std::stop_token& stop, const ChangeDone& done);

  const DeviceHost host_;
  const std::map<Guid, NicTuning> tuning_;
  std::map<Guid, std::unique_ptr<Card>> cards_;
  mutable std::mutex mutex_;  // guards changes of cards_ and reads from other threads
};

}  // namespace bothy::machine
