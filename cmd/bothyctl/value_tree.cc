#include "cmd/bothyctl/value_tree.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cmd/bothyctl/error_text.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Value;

// A hostile server's tree ends here; protobuf's own parser doesn't go deeper than 100 messages.
constexpr int kMaxDepth = 100;

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

// Digits compare as the number they make.
bool NaturallyLess(const std::string& a, const std::string& b) {
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (IsDigit(a[i]) && IsDigit(b[j])) {
      const size_t a_begin = std::min(a.find_first_not_of('0', i), a.size());
      const size_t b_begin = std::min(b.find_first_not_of('0', j), b.size());
      for (i = a_begin; i < a.size() && IsDigit(a[i]);) ++i;
      for (j = b_begin; j < b.size() && IsDigit(b[j]);) ++j;
      if (i - a_begin != j - b_begin) return i - a_begin < j - b_begin;
      const int order = a.compare(a_begin, i - a_begin, b, b_begin, j - b_begin);
      if (order != 0) return order < 0;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  if (i < a.size() || j < b.size()) return i == a.size();
  return a < b;
}

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
