// The answer of InspectVM for people.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>

namespace bothy::bothyctl {

// One line a value, children indented below their folder, in the order of their names (numbers by
// their value: "vp-2" before "vp-10"); a folder that wasn't filled in ends with "/".
//
//   com1/
//     connected: true
//     queues/
//   layout: flat
std::string ValueTreeText(const google::protobuf::Value& value);

}  // namespace bothy::bothyctl
