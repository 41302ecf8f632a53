// NicFlag: one --nic of the command line, "user,forward=tcp:2222:22", "switch=br0,mac=...".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

struct NicFlag {
  ::vmservice::NICConfig nic;  // nic_id may be empty: AddNics gives it one
};

// Words between commas, in any order, "user", "tap=NAME" or "switch=NAME" among them:
//   user, forward=[tcp:|udp:]HOST_PORT:GUEST_PORT (any number), network=10.0.2.0/24
//   tap=NAME
//   switch=NAME-OR-ALIAS, port=ALIAS
//   id=GUID, mac=12-34-56-78-9A-BC (or with colons), name=TEXT
// What the values may be is the server's to check. InvalidArgument says what is wrong.
absl::StatusOr<NicFlag> ParseNicFlag(std::string_view text);

// One port of `forward=`, onto `user`.
absl::Status AddForward(std::string_view text, ::vmservice::UserBackend* user);

// A MAC address as the contract writes it, of one with dashes or colons.
std::string PlainMac(std::string_view text);

// Adds cards to `config`; one whose id `config` has already replaces that one. Without an id it
// gets a random one, and so an address that no other VM's card has. InvalidArgument when two
// flags have one id.
absl::Status AddNics(const std::vector<NicFlag>& flags, ::vmservice::VMConfig* config);

}  // namespace bothy::bothyctl
