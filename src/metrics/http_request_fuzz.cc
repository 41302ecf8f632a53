// Whatever a client sends: the parser looks at no more than kMaxBytes, takes what it says it takes,
// and finds the same in a request however much has come behind it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "metrics/http_request.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using bothy::metrics::HttpRequest;
  const std::string_view received(reinterpret_cast<const char*>(data), size);
  const HttpRequest request = HttpRequest::Parse(received);
  switch (request.form) {
    case HttpRequest::Form::kIncomplete:
      CHECK(size < HttpRequest::kMaxBytes);
      return 0;
    case HttpRequest::Form::kTooLong:
      CHECK(size >= HttpRequest::kMaxBytes);
      return 0;
    default:
      break;
  }
  CHECK(request.size > 0 && request.size <= size && request.size <= HttpRequest::kMaxBytes);
  const HttpRequest alone = HttpRequest::Parse(received.substr(0, request.size));
  CHECK(alone.form == request.form && alone.path == request.path);
  CHECK(HttpRequest::Parse(received.substr(0, request.size - 1)).form ==
        HttpRequest::Form::kIncomplete);
  if (request.form == HttpRequest::Form::kComplete) {
    CHECK(!request.method.empty() && request.path.starts_with('/'));
    CHECK(request.path.find('?') == std::string_view::npos);
  }
  return 0;
}
