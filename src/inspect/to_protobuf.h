// A Value as a google.protobuf.Value, which knows doubles and UTF-8 alone.
//
// A library of its own (bothy_inspect_protobuf): who describes itself links no protobuf.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>
#include <string_view>

#include "inspect/value.h"

namespace bothy::inspect {

// Integers beyond +-2^53, which a double can't tell from their neighbours, become decimal text;
// infinities and NaN, which the JSON form of the message refuses, "inf", "-inf" and "nan". Text
// is made ValidUtf8.
[[nodiscard]] google::protobuf::Value ToProtobuf(const Value& value);

// `text` with U+FFFD for each byte that belongs to no well-formed sequence (Unicode 15, table 3-7).
[[nodiscard]] std::string ValidUtf8(std::string_view text);

}  // namespace bothy::inspect
