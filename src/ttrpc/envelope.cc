#include "ttrpc/envelope.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/cord.h"

namespace bothy::ttrpc {
namespace {

// Wire types of the protobuf encoding.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kGroupStart = 3;
constexpr uint32_t kGroupEnd = 4;
constexpr uint32_t kFixed32 = 5;

constexpr uint32_t Tag(uint32_t field, uint32_t wire_type) { return field << 3 | wire_type; }

// The same bound as protobuf's own parsers have.
constexpr int kMaxGroupDepth = 100;
constexpr size_t kMaxStatusMessage = 64 << 10;
constexpr size_t kMaxDetails = 1 << 20;

// Reads protobuf's wire format. Every Read returns false at malformed input and is not to be
// called again then.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes)
      : at_(reinterpret_cast<const uint8_t*>(bytes.data())), end_(at_ + bytes.size()) {}

  [[nodiscard]] bool AtEnd() const { return at_ == end_; }

  bool ReadVarint(uint64_t* value) {
    uint64_t result = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) return false;
      const uint8_t byte = *at_++;
      // Bits over the 64th of a ten-byte varint are dropped, as protobuf does.
      if (shift < 64) result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        *value = result;
        return true;
      }
    }
    return false;
  }

  bool ReadTag(uint32_t* tag) {
    const uint8_t* const start = at_;
    uint64_t value;
    if (!ReadVarint(&value)) return false;
    // At most 5 bytes, of which 32 bits count (as protobuf has it); field 0 doesn't exist.
    if (at_ - start > 5 || static_cast<uint32_t>(value) >> 3 == 0) return false;
    *tag = static_cast<uint32_t>(value);
    return true;
  }

  bool ReadBytes(std::string_view* bytes) {
    const uint8_t* const start = at_;
    uint64_t size;
    // A length has at most 5 bytes, too.
    if (!ReadVarint(&size) || at_ - start > 5) return false;
    if (size > static_cast<uint64_t>(end_ - at_)) return false;
    *bytes = {reinterpret_cast<const char*>(at_), size};
    at_ += size;
    return true;
  }

  bool ReadString(std::string_view* text) { return ReadBytes(text) && IsUtf8(*text); }

  bool Skip(uint32_t tag, int depth = 0) {
    switch (tag & 7) {
      case kVarint: {
        uint64_t value;
        return ReadVarint(&value);
      }
      case kFixed64:
        return Advance(8);
      case kBytes: {
        std::string_view bytes;
        return ReadBytes(&bytes);
      }
      case kGroupStart: {
        if (depth >= kMaxGroupDepth) return false;
        for (uint32_t inner; ReadTag(&inner);) {
          if ((inner & 7) == kGroupEnd) return inner >> 3 == tag >> 3;
          if (!Skip(inner, depth + 1)) return false;
        }
        return false;
      }
      case kFixed32:
        return Advance(4);
      default:
        return false;
    }
  }

 private:
  bool Advance(ptrdiff_t size) {
    if (end_ - at_ < size) return false;
    at_ += size;
    return true;
  }

  const uint8_t* at_;
  const uint8_t* const end_;
};

bool DecodeKeyValue(std::string_view bytes, std::pair<std::string_view, std::string_view>* pair) {
  WireReader reader(bytes);
  while (!reader.AtEnd()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) return false;
    switch (tag) {
      case Tag(1, kBytes):
        if (!reader.ReadString(&pair->first)) return false;
        break;
      case Tag(2, kBytes):
        if (!reader.ReadString(&pair->second)) return false;
        break;
      default:
        if (!reader.Skip(tag)) return false;
    }
  }
  return true;
}

bool DecodeRequestFields(std::string_view data, RequestView* request) {
  WireReader reader(data);
  while (!reader.AtEnd()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) return false;
    switch (tag) {
      case Tag(1, kBytes):
        if (!reader.ReadString(&request->service)) return false;
        break;
      case Tag(2, kBytes):
        if (!reader.ReadString(&request->method)) return false;
        break;
      case Tag(3, kBytes):
        if (!reader.ReadBytes(&request->payload)) return false;
        break;
      case Tag(4, kVarint): {
        uint64_t value;
        if (!reader.ReadVarint(&value)) return false;
        request->timeout_nano = static_cast<int64_t>(value);
        break;
      }
      case Tag(5, kBytes): {
        std::string_view bytes;
        if (!reader.ReadBytes(&bytes)) return false;
        if (!DecodeKeyValue(bytes, &request->metadata.emplace_back())) return false;
        break;
      }
      default:
        if (!reader.Skip(tag)) return false;
    }
  }
  return true;
}

// google.rpc.Status; details are pairs of type URL and serialised message.
struct StatusView {
  int32_t code = 0;
  std::string_view message;
  std::vector<std::pair<std::string_view, std::string_view>> details;
};

bool DecodeAny(std::string_view bytes, std::pair<std::string_view, std::string_view>* any) {
  WireReader reader(bytes);
  while (!reader.AtEnd()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) return false;
    switch (tag) {
      case Tag(1, kBytes):
        if (!reader.ReadString(&any->first)) return false;
        break;
      case Tag(2, kBytes):
        if (!reader.ReadBytes(&any->second)) return false;
        break;
      default:
        if (!reader.Skip(tag)) return false;
    }
  }
  return true;
}

bool DecodeStatusFields(std::string_view bytes, StatusView* status) {
  WireReader reader(bytes);
  while (!reader.AtEnd()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) return false;
    switch (tag) {
      case Tag(1, kVarint): {
        uint64_t value;
        if (!reader.ReadVarint(&value)) return false;
        status->code = static_cast<int32_t>(value);
        break;
      }
      case Tag(2, kBytes):
        if (!reader.ReadString(&status->message)) return false;
        break;
      case Tag(3, kBytes): {
        std::string_view any;
        if (!reader.ReadBytes(&any)) return false;
        if (!DecodeAny(any, &status->details.emplace_back())) return false;
        break;
      }
      default:
        if (!reader.Skip(tag)) return false;
    }
  }
  return true;
}

absl::Status ToAbslStatus(const StatusView& view) {
  if (view.code == 0) return absl::OkStatus();
  const bool known = view.code > 0 && view.code <= 16;
  const auto code = known ? static_cast<absl::StatusCode>(view.code) : absl::StatusCode::kUnknown;
  absl::Status status(code, std::string(view.message));
  for (const auto& [type_url, value] : view.details) {
    status.SetPayload(std::string(type_url), absl::Cord(std::string(value)));
  }
  return status;
}

size_t SizeOfVarint(uint64_t value) {
  // 7 bits a byte, at least one.
  return (static_cast<size_t>(63 - __builtin_clzll(value | 1)) * 9 + 73) / 64;
}

uint8_t* WriteVarint(uint64_t value, uint8_t* to) {
  while (value >= 0x80) {
    *to++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<uint8_t>(value);
  return to;
}

// A length-delimited field with a field number below 16.
size_t SizeOfField(size_t size) { return 1 + SizeOfVarint(size) + size; }
uint8_t* WriteFieldHead(uint32_t field, size_t size, uint8_t* to) {
  *to++ = static_cast<uint8_t>(Tag(field, kBytes));
  return WriteVarint(size, to);
}
uint8_t* WriteField(uint32_t field, std::string_view bytes, uint8_t* to) {
  to = WriteFieldHead(field, bytes.size(), to);
  return std::copy(bytes.begin(), bytes.end(), to);
}
void AppendField(uint32_t field, std::string_view bytes, std::string* to) {
  const size_t before = to->size();
  to->resize(before + SizeOfField(bytes.size()));
  WriteField(field, bytes, reinterpret_cast<uint8_t*>(to->data()) + before);
}

size_t SizeOfKeyValue(const std::pair<std::string, std::string>& pair) {
  return SizeOfField(pair.first.size()) + SizeOfField(pair.second.size());
}

// How many bytes the UTF-8 sequence at the front of `text` has; 0 when it isn't one.
size_t Utf8SequenceSize(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    // No over-long forms (E0) and no surrogates (ED).
    const uint8_t low = lead == 0xe0 ? 0xa0 : 0x80;
    const uint8_t high = lead == 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    // No over-long forms (F0) and nothing over U+10FFFF (F4).
    const uint8_t low = lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

std::string ToUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t size = Utf8SequenceSize(text);
    if (result.size() + std::max<size_t>(size, 1) > kMaxStatusMessage) break;
    if (size == 0) {
      result.push_back('?');
      text.remove_prefix(1);
    } else {
      result.append(text.substr(0, size));
      text.remove_prefix(size);
    }
  }
  return result;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t size = Utf8SequenceSize(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

absl::Status DecodeRequest(std::string_view data, RequestView* request) {
  if (!DecodeRequestFields(data, request)) {
    return absl::InvalidArgumentError("ttrpc: the request can't be decoded");
  }
  return absl::OkStatus();
}

absl::Status DecodeResponse(std::string_view data, ResponseView* response) {
  // Several occurrences of one embedded message are merged.
  std::optional<StatusView> status;
  WireReader reader(data);
  bool good = true;
  while (good && !reader.AtEnd()) {
    uint32_t tag;
    good = reader.ReadTag(&tag);
    if (!good) break;
    switch (tag) {
      case Tag(1, kBytes): {
        if (!status) status.emplace();
        std::string_view bytes;
        good = reader.ReadBytes(&bytes) && DecodeStatusFields(bytes, &*status);
        break;
      }
      case Tag(2, kBytes):
        good = reader.ReadBytes(&response->payload);
        break;
      default:
        good = reader.Skip(tag);
    }
  }
  if (!good) return absl::InternalError("ttrpc: the response can't be decoded");
  if (status) response->status = ToAbslStatus(*status);
  return absl::OkStatus();
}

size_t SizeOfRequest(const RequestHead& head, size_t payload_size) {
  size_t size = SizeOfField(head.service.size()) + SizeOfField(head.method.size());
  if (head.timeout_nano != 0) {
    size += 1 + SizeOfVarint(static_cast<uint64_t>(head.timeout_nano));
  }
  if (head.metadata != nullptr) {
    for (const auto& pair : *head.metadata) size += SizeOfField(SizeOfKeyValue(pair));
  }
  if (payload_size > 0) size += SizeOfField(payload_size);
  return size;
}

uint8_t* EncodeRequest(const RequestHead& head, size_t payload_size, uint8_t* to) {
  to = WriteField(1, head.service, to);
  to = WriteField(2, head.method, to);
  if (head.timeout_nano != 0) {
    *to++ = Tag(4, kVarint);
    to = WriteVarint(static_cast<uint64_t>(head.timeout_nano), to);
  }
  if (head.metadata != nullptr) {
    for (const auto& pair : *head.metadata) {
      to = WriteFieldHead(5, SizeOfKeyValue(pair), to);
      to = WriteField(1, pair.first, to);
      to = WriteField(2, pair.second, to);
    }
  }
  // Last, so that the caller's message can write itself there; the order of fields is free.
  if (payload_size > 0) to = WriteFieldHead(3, payload_size, to);
  return to;
}

size_t SizeOfResponse(size_t payload_size) {
  return payload_size > 0 ? SizeOfField(payload_size) : 0;
}

uint8_t* EncodeResponse(size_t payload_size, uint8_t* to) {
  return payload_size > 0 ? WriteFieldHead(2, payload_size, to) : to;
}

std::string EncodeErrorResponse(const absl::Status& status) {
  std::string body;
  body.push_back(static_cast<char>(Tag(1, kVarint)));
  uint8_t code[10];
  const auto raw = static_cast<uint64_t>(static_cast<int64_t>(status.raw_code()));
  body.append(reinterpret_cast<char*>(code), WriteVarint(raw, code) - code);
  if (!status.message().empty()) {
    AppendField(2, ToUtf8({status.message().data(), status.message().size()}), &body);
  }
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& value) {
    const std::string_view url(type_url.data(), type_url.size());
    std::string any;
    AppendField(1, ToUtf8(url), &any);
    AppendField(2, std::string(value), &any);
    if (body.size() + any.size() <= kMaxDetails) AppendField(3, any, &body);
  });
  std::string response;
  AppendField(1, body, &response);
  return response;
}

}  // namespace bothy::ttrpc
