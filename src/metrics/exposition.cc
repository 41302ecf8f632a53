#include "metrics/exposition.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "metrics/catalogue.h"
#include "support/utf8.h"

namespace bothy::metrics {
namespace {

using inspect::Directory;
using inspect::Entry;
using inspect::Value;

constexpr uint64_t kNsPerSecond = 1'000'000'000;

// Of a label's value, in quotes: backslash, quote and line feed are escaped, and it is UTF-8.
std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : ValidUtf8(text)) {
    if (c == '\n') {
      escaped += "\\n";
    } else {
      if (c == '\\' || c == '"') escaped += '\\';
      escaped += c;
    }
  }
  return escaped;
}

// Empty: no number, which has no sample.
std::string Number(const Value& value, Reading reading) {
  if (reading == Reading::kText) return std::holds_alternative<std::string>(value) ? "1" : "";
  return std::visit(
      [reading](const auto& held) -> std::string {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, bool>) return held ? "1" : "0";
        if constexpr (std::is_same_v<Held, uint64_t> || std::is_same_v<Held, int64_t>) {
          // All of its digits: a counter must not stand still, and no rounding make it go back.
          if (reading == Reading::kNumber) return absl::StrCat(held);
          const auto ns = static_cast<uint64_t>(std::max<Held>(held, 0));
          return absl::StrFormat("%d.%09d", ns / kNsPerSecond, ns % kNsPerSecond);
        }
        if constexpr (std::is_same_v<Held, double>) {
          if (std::isnan(held)) return "NaN";
          if (std::isinf(held)) return held > 0 ? "+Inf" : "-Inf";
          return absl::StrFormat("%.17g", reading == Reading::kNumber ? held : held / 1e9);
        }
        return "";
      },
      value.AsVariant());
}

class Writer {
 public:
  void Write(const Definition& definition, const Value& root) {
    definition_ = &definition;
    headed_ = false;
    label_count_ = 0;
    Follow(definition.path, root);
  }
  std::string Take() { return std::move(text_); }

 private:
  void Follow(std::string_view path, const Value& value) {
    if (path.empty()) return Sample(value);
    const auto* const directory = std::get_if<Directory>(&value.AsVariant());
    if (directory == nullptr) return;
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view name = path.substr(0, end);
    const std::string_view rest = path.substr(std::min(end + 1, path.size()));
    for (const Entry& entry : directory->entries) {
      if (name == "*") {
        labels_[label_count_++] = entry.name;
        Follow(rest, entry.value);
        --label_count_;
      } else if (name == entry.name) {
        return Follow(rest, entry.value);
      }
    }
  }

  void Sample(const Value& value) {
    const std::string number = Number(value, definition_->reading);
    if (number.empty()) return;
    if (!headed_) {
      headed_ = true;
      absl::StrAppend(&text_, "# HELP ", std::string(definition_->name), " ",
                      std::string(definition_->help), "\n# TYPE ", std::string(definition_->name),
                      definition_->type == Type::kCounter ? " counter\n" : " gauge\n");
    }
    text_ += definition_->name;
    for (size_t i = 0; i < definition_->labels.size(); ++i) {
      const std::string_view label =
          i < label_count_ ? Label(labels_[i]) : std::string_view(std::get<std::string>(value));
      absl::StrAppend(&text_, i == 0 ? "{" : ",", std::string(definition_->labels[i]), "=\"",
                      Escaped(label), "\"");
    }
    absl::StrAppend(&text_, definition_->labels.empty() ? " " : "} ", number, "\n");
  }

  // A name without the unit that the metric has changed.
  [[nodiscard]] std::string_view Label(std::string_view name) const {
    constexpr std::string_view kUnit = "_ns";
    const bool has_unit = definition_->reading == Reading::kNanoseconds && name.ends_with(kUnit);
    return has_unit ? name.substr(0, name.size() - kUnit.size()) : name;
  }

  std::string text_;
  const Definition* definition_ = nullptr;
  bool headed_ = false;
  std::array<std::string_view, kMaxLabels> labels_;
  size_t label_count_ = 0;
};

}  // namespace

std::string Exposition(const Value& root) {
  Writer writer;
  for (const Definition& definition : Catalogue()) writer.Write(definition, root);
  return writer.Take();
}

}  // namespace bothy::metrics
