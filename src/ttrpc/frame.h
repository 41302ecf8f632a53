// The ttrpc frame: a 10-byte header and up to 4 MiB of data (containerd/ttrpc, PROTOCOL.md).
//
//   u32 BE length of the data | u32 BE stream id | u8 type | u8 flags | data
//
// Pure functions and an incremental decoder; no sockets, no allocation for frames that arrive
// whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bothy::ttrpc {

inline constexpr size_t kFrameHeaderSize = 10;
// The protocol's limit on a frame's data.
inline constexpr uint32_t kMaxMessage = 4u << 20;

// FrameHeader::type. Other values are reserved; a receiver passes over them.
inline constexpr uint8_t kFrameRequest = 1;   // client → server: opens a stream
inline constexpr uint8_t kFrameResponse = 2;  // server → client: ends a stream
inline constexpr uint8_t kFrameData = 3;      // either way, on a stream that isn't unary

// FrameHeader::flags, from the point of view of the frame's receiver.
inline constexpr uint8_t kFlagRemoteClosed = 0x1;  // the sender will send no more on this stream
inline constexpr uint8_t kFlagRemoteOpen = 0x2;    // the sender will send data on this stream
inline constexpr uint8_t kFlagNoData = 0x4;        // this data frame carries no message

struct FrameHeader {
  uint32_t length = 0;  // of the data, header not counted
  uint32_t stream_id = 0;
  uint8_t type = 0;
  uint8_t flags = 0;

  bool operator==(const FrameHeader&) const = default;
};

// `from`/`to` hold kFrameHeaderSize bytes.
[[nodiscard]] FrameHeader DecodeFrameHeader(const uint8_t* from);
void EncodeFrameHeader(const FrameHeader& header, uint8_t* to);

// Splits a byte stream into frames, however it is cut into reads.
//
//   std::string_view input = bytes_just_read;
//   FrameDecoder::Frame frame;
//   while ((event = decoder.Next(&input, &frame)) != FrameDecoder::Event::kNeedMore) ...
//
// Memory: nothing but this object while frames arrive whole; a frame cut by the end of a read is
// collected in a buffer that grows with the bytes that really arrived (never with what a header
// promises) and is freed with the frame. Not thread-safe.
class FrameDecoder {
 public:
  enum class Event {
    kNeedMore,  // all of the input is consumed and no frame is complete
    kFrame,     // a whole frame: header and data
    kOverlong,  // a header that announces more than the limit; the data is skipped as it comes
  };
  struct Frame {
    FrameHeader header;
    // Valid until the next call of Next and while the input's bytes are. Empty for kOverlong.
    std::string_view data;
  };

  explicit FrameDecoder(uint32_t max_message = kMaxMessage) : max_message_(max_message) {}

  // Takes at most one frame off the front of `*input`.
  [[nodiscard]] Event Next(std::string_view* input, Frame* frame);

  // Whether the stream stands between two frames: an end of file is clean only here.
  [[nodiscard]] bool AtFrameBoundary() const {
    return header_filled_ == 0 && !collecting_ && skip_ == 0;
  }
  // Bytes held for a frame that isn't complete yet.
  [[nodiscard]] size_t BufferedBytes() const { return data_.capacity(); }

 private:
  const uint32_t max_message_;
  uint8_t header_bytes_[kFrameHeaderSize];
  uint8_t header_filled_ = 0;
  bool collecting_ = false;  // header_ is decoded, data_ waits for the rest of its bytes
  bool delivered_ = false;   // data_ went out with the last frame and can be freed
  uint64_t skip_ = 0;        // bytes of an over-long frame still to come
  FrameHeader header_;
  std::string data_;
};

}  // namespace bothy::ttrpc
