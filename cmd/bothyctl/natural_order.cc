#include "cmd/bothyctl/natural_order.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace bothy::bothyctl {
namespace {

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

}  // namespace

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

}  // namespace bothy::bothyctl
