// The protobuf messages inside ttrpc frames (ttrpc.proto), written and read in place.
//
// Every call passes here twice on either side, so nothing is copied: a decoded view points into the
// frame, and an encoder leaves room at the end of the frame for the caller's message to serialise
// itself into. envelope_test.cc holds all of it against the generated code of ttrpc.proto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace bothy::ttrpc {

// Key-value pairs that travel with a request; a key may appear more than once.
using Metadata = std::vector<std::pair<std::string, std::string>>;

// A decoded Request; valid while the frame's bytes are.
struct RequestView {
  std::string_view service;
  std::string_view method;
  std::string_view payload;
  int64_t timeout_nano = 0;
  std::vector<std::pair<std::string_view, std::string_view>> metadata;
};

// InvalidArgument when `data` isn't a Request as proto3 has it (strings must be UTF-8). Unknown
// fields are passed over.
[[nodiscard]] absl::Status DecodeRequest(std::string_view data, RequestView* request);

// A decoded Response. `payload` points into the frame and means something only if `status` is OK.
struct ResponseView {
  absl::Status status;
  std::string_view payload;
};

// Internal when `data` isn't a Response. A code outside google.rpc.Code becomes Unknown; the
// status's details become payloads of the absl::Status.
[[nodiscard]] absl::Status DecodeResponse(std::string_view data, ResponseView* response);

// What goes before the payload of a request. The views are the caller's.
struct RequestHead {
  std::string_view service;
  std::string_view method;
  int64_t timeout_nano = 0;
  const Metadata* metadata = nullptr;  // none when null
};

// The whole Request is SizeOfRequest bytes. EncodeRequest writes all but the payload, which
// belongs in the `payload_size` bytes from the returned address on.
[[nodiscard]] size_t SizeOfRequest(const RequestHead& head, size_t payload_size);
[[nodiscard]] uint8_t* EncodeRequest(const RequestHead& head, size_t payload_size, uint8_t* to);

// The same for a Response whose status is OK.
[[nodiscard]] size_t SizeOfResponse(size_t payload_size);
[[nodiscard]] uint8_t* EncodeResponse(size_t payload_size, uint8_t* to);

// A Response that is only a status (not OK). Bytes of the message that aren't UTF-8 become '?',
// and a message over 64 KiB is cut: an error must always fit its frame. Details that wouldn't fit
// are left out.
[[nodiscard]] std::string EncodeErrorResponse(const absl::Status& status);

// Whether `text` is well-formed UTF-8 (RFC 3629).
[[nodiscard]] bool IsUtf8(std::string_view text);

}  // namespace bothy::ttrpc
