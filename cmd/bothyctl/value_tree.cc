#include "cmd/bothyctl/value_tree.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/natural_order.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Value;

// A hostile server's tree ends here; protobuf's own parser doesn't go deeper than 100 messages.
constexpr int kMaxDepth = 100;

std::string Scalar(const Value& value) {
  switch (value.kind_case()) {
    case Value::kNumberValue: {
      const double number = value.number_value();
      if (number == std::floor(number) && std::abs(number) < 9007199254740992.0) {
        return absl::StrCat(static_cast<int64_t>(number));
      }
      return absl::StrFormat("%.17g", number);
    }
    case Value::kStringValue:
      return OneLine(value.string_value());
    case Value::kBoolValue:
      return value.bool_value() ? "true" : "false";
    default:
      return "null";
  }
}

void Append(const std::string& name, const Value& value, int depth, std::string* text);

void AppendChildren(const Value& value, int depth, std::string* text) {
  if (value.kind_case() == Value::kStructValue) {
    std::vector<const std::string*> names;
    for (const auto& [name, child] : value.struct_value().fields()) names.push_back(&name);
    std::sort(names.begin(), names.end(),
              [](const auto* a, const auto* b) { return NaturallyLess(*a, *b); });
    for (const std::string* name : names) {
      Append(*name, value.struct_value().fields().at(*name), depth, text);
    }
  } else {
    for (int i = 0; i < value.list_value().values_size(); ++i) {
      Append(absl::StrCat(i), value.list_value().values(i), depth, text);
    }
  }
}

void Append(const std::string& name, const Value& value, int depth, std::string* text) {
  absl::StrAppend(text, std::string(static_cast<size_t>(depth) * 2, ' '), OneLine(name));
  switch (value.kind_case()) {
    case Value::kStructValue:
    case Value::kListValue:
      *text += "/\n";
      if (depth < kMaxDepth) AppendChildren(value, depth + 1, text);
      return;
    case Value::kNullValue:
    case Value::KIND_NOT_SET:
      *text += "/\n";
      return;
    default:
      absl::StrAppend(text, ": ", Scalar(value), "\n");
  }
}

}  // namespace

std::string ValueTreeText(const Value& value) {
  std::string text;
  if (value.kind_case() == Value::kStructValue || value.kind_case() == Value::kListValue) {
    AppendChildren(value, 0, &text);
  } else {
    text = Scalar(value) + "\n";
  }
  return text;
}

}  // namespace bothy::bothyctl
