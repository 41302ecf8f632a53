// TopSample: what `bothyctl top` knows of one server at one moment, and what changed between two.
//
// Taken from InspectVM's tree (docs/inspect.md). Whatever isn't there, or isn't what it should be,
// counts as nothing: servers may be older or newer than this client.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace bothy::bothyctl {

// Counters by name ("port", "read_bytes").
using Counters = std::map<std::string, uint64_t>;

struct TopSample {
  std::chrono::steady_clock::time_point at;
  std::string state;  // "running"; empty: the server didn't say
  std::string log_id;
  uint64_t ram_bytes = 0;
  uint64_t resident_bytes = 0;
  // By name: "0"; "scsi0:3", "pmem0"; "net0".
  std::map<std::string, Counters> processors;  // runtime_ns; exits by reason
  std::map<std::string, Counters> disks;  // read_bytes, written_bytes, commands, in_flight, errors
  std::map<std::string, Counters> nics;   // received_*, sent_* (bytes, frames, drops)
};

// `root` is the whole tree.
TopSample ReadTopSample(const google::protobuf::Value& root,
                        std::chrono::steady_clock::time_point at);

// A second's worth.
using Rates = std::map<std::string, double>;

struct TopRates {
  TopSample now;
  std::map<std::string, Rates> processors;
  std::map<std::string, Rates> disks;
  std::map<std::string, Rates> nics;
};

// Of what is in both; a counter that went down has begun anew, and what it shows is what was
// counted since. `before` is older than `now`.
TopRates RatesBetween(const TopSample& before, TopSample now);

// The sum of `name` over all of them.
double Total(const std::map<std::string, Rates>& parts, const std::string& name);
// Of one processor, for whatever reason.
double ExitsOf(const Rates& processor);

}  // namespace bothy::bothyctl
