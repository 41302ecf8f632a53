#include "metrics/http_request.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace bothy::metrics {
namespace {

using Form = HttpRequest::Form;

// RFC 9110, 5.6.2.
bool IsToken(std::string_view text) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           kOthers.find(c) != std::string_view::npos;
  });
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return absl::ascii_tolower(static_cast<unsigned char>(x)) ==
           absl::ascii_tolower(static_cast<unsigned char>(y));
  });
}

std::string_view Trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

// Whether a comma-separated list has `word`, in any case.
bool Lists(std::string_view list, std::string_view word) {
  while (true) {
    const size_t comma = std::min(list.find(','), list.size());
    if (EqualsIgnoringCase(Trimmed(list.substr(0, comma)), word)) return true;
    if (comma == list.size()) return false;
    list.remove_prefix(comma + 1);
  }
}

// Takes a line from the front, its CR LF (or LF alone: RFC 9112, 2.2) too.
std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  text->remove_prefix(end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// Bytes of a head that are complete; 0: the empty line hasn't come yet.
size_t HeadSize(std::string_view received) {
  for (size_t end = received.find('\n'); end != std::string_view::npos;
       end = received.find('\n', end + 1)) {
    const std::string_view rest = received.substr(end + 1);
    if (rest.starts_with('\n')) return end + 2;
    if (rest.starts_with("\r\n")) return end + 3;
  }
  return 0;
}

Form ParseRequestLine(std::string_view line, HttpRequest* request) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return Form::kMalformed;
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  const bool printable =
      std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!IsToken(method) || !target.starts_with('/') || !printable) return Form::kMalformed;
  if (version != "HTTP/1.0" && version != "HTTP/1.1") return Form::kBadVersion;
  request->method = method;
  request->path = target.substr(0, target.find('?'));
  request->keep_alive = version == "HTTP/1.1";
  return Form::kComplete;
}

Form ParseField(std::string_view line, HttpRequest* request) {
  const size_t colon = line.find(':');
  // No space before the colon, and no folded lines (RFC 9112, 5.1 and 5.2).
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return Form::kMalformed;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (value.find('\r') != std::string_view::npos || value.find('\0') != std::string_view::npos) {
    return Form::kMalformed;
  }
  if (EqualsIgnoringCase(name, "connection")) {
    if (Lists(value, "close")) request->keep_alive = false;
  } else if (EqualsIgnoringCase(name, "transfer-encoding") ||
             (EqualsIgnoringCase(name, "content-length") && value != "0")) {
    return Form::kHasBody;
  }
  return Form::kComplete;
}

}  // namespace

HttpRequest HttpRequest::Parse(std::string_view received) {
  HttpRequest request;
  const size_t size = HeadSize(received.substr(0, kMaxBytes));
  if (size == 0) {
    request.form = received.size() >= kMaxBytes ? Form::kTooLong : Form::kIncomplete;
    return request;
  }
  request.size = size;
  std::string_view head = received.substr(0, size);
  request.form = ParseRequestLine(TakeLine(&head), &request);
  while (request.form == Form::kComplete) {
    const std::string_view line = TakeLine(&head);
    if (line.empty()) break;
    request.form = ParseField(line, &request);
  }
  return request;
}

}  // namespace bothy::metrics
