#include "inspect/to_protobuf.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "support/utf8.h"

namespace bothy::inspect {
namespace {

constexpr int64_t kExactInDouble = int64_t{1} << 53;

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

}  // namespace bothy::inspect
