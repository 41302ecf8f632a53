// The head of an HTTP/1.x request (RFC 9112), as far as an endpoint needs it that has one page and
// takes no bodies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bothy::metrics {

struct HttpRequest {
  // Of the head; what is longer is kTooLong.
  static constexpr size_t kMaxBytes = 8192;

  enum class Form : uint8_t {
    kIncomplete,  // read more
    kComplete,
    kTooLong,
    kMalformed,   // and so is whatever comes behind it
    kHasBody,     // where the next request begins isn't known
    kBadVersion,  // not HTTP/1.0 or 1.1
  };

  Form form = Form::kIncomplete;
  size_t size = 0;         // of the head in bytes, when kComplete
  std::string method;      // "GET"; methods are case-sensitive
  std::string path;        // of the target, without its query: "/metrics"
  bool keep_alive = true;  // the client would make another request on this connection

  // Looks at what a client has sent so far.
  [[nodiscard]] static HttpRequest Parse(std::string_view received);
};

}  // namespace bothy::metrics
