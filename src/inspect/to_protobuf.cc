#include "inspect/to_protobuf.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace bothy::inspect {
namespace {

constexpr int64_t kExactInDouble = int64_t{1} << 53;

// The length of the well-formed UTF-8 sequence at the beginning of `text`, or 0.
size_t SequenceLength(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto follows = [&](size_t i, uint8_t low, uint8_t high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1, 0x80, 0xBF) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    // Neither overlong nor surrogates.
    const uint8_t low = first == 0xE0 ? 0xA0 : 0x80;
    const uint8_t high = first == 0xED ? 0x9F : 0xBF;
    return follows(1, low, high) && follows(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const uint8_t low = first == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xF4 ? 0x8F : 0xBF;
    return follows(1, low, high) && follows(2, 0x80, 0xBF) && follows(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

struct Convert {
  google::protobuf::Value& out;

  void operator()(Null) const { out.set_null_value(google::protobuf::NULL_VALUE); }
  void operator()(bool value) const { out.set_bool_value(value); }
  void operator()(int64_t value) const {
    if (value >= -kExactInDouble && value <= kExactInDouble) {
      out.set_number_value(static_cast<double>(value));
    } else {
      out.set_string_value(absl::StrCat(value));
    }
  }
  void operator()(uint64_t value) const {
    if (value <= static_cast<uint64_t>(kExactInDouble)) {
      out.set_number_value(static_cast<double>(value));
    } else {
      out.set_string_value(absl::StrCat(value));
    }
  }
  void operator()(double value) const {
    if (std::isnan(value)) {
      out.set_string_value("nan");
    } else if (std::isinf(value)) {
      out.set_string_value(value > 0 ? "inf" : "-inf");
    } else {
      out.set_number_value(value);
    }
  }
  void operator()(const std::string& text) const { out.set_string_value(ValidUtf8(text)); }
  void operator()(const Directory& directory) const {
    auto& fields = *out.mutable_struct_value()->mutable_fields();
    for (const Entry& entry : directory.entries) {
      std::visit(Convert{fields[ValidUtf8(entry.name)]}, entry.value.AsVariant());
    }
  }
};

}  // namespace

google::protobuf::Value ToProtobuf(const Value& value) {
  google::protobuf::Value out;
  std::visit(Convert{out}, value.AsVariant());
  return out;
}

std::string ValidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) {
      valid += "\xEF\xBF\xBD";
    } else {
      valid += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return valid;
}

}  // namespace bothy::inspect
