// A Value as a google.protobuf.Value, which knows doubles and UTF-8 alone.
//
// A library of its own (bothy_inspect_protobuf): who describes itself links no protobuf.
#pragma once

#include <google/protobuf/struct.pb.h>

#include "inspect/value.h"

namespace bothy::inspect {

// Integers beyond +-2^53, which a double can't tell from their neighbours, become decimal text;
// infinities and NaN, which the JSON form of the message refuses, "inf", "-inf" and "nan". Text
// is made ValidUtf8 (support/utf8.h).
[[nodiscard]] google::protobuf::Value ToProtobuf(const Value& value);

}  // namespace bothy::inspect
