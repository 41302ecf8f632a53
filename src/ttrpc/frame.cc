#include "ttrpc/frame.h"

#include <algorithm>
#include <cstring>

#include "support/endian.h"

namespace bothy::ttrpc {

FrameHeader DecodeFrameHeader(const uint8_t* from) {
  return FrameHeader{.length = LoadBe<uint32_t>(from),
                     .stream_id = LoadBe<uint32_t>(from + 4),
                     .type = from[8],
                     .flags = from[9]};
}

void EncodeFrameHeader(const FrameHeader& header, uint8_t* to) {
  StoreBe<uint32_t>(to, header.length);
  StoreBe<uint32_t>(to + 4, header.stream_id);
  to[8] = header.type;
  to[9] = header.flags;
}

FrameDecoder::Event FrameDecoder::Next(std::string_view* input, Frame* frame) {
  if (delivered_) {
    delivered_ = false;
    // Long messages are rare: an idle connection keeps no buffer for the next one.
    std::string().swap(data_);
  }
  if (skip_ > 0) {
    const size_t skipped = std::min<uint64_t>(skip_, input->size());
    input->remove_prefix(skipped);
    skip_ -= skipped;
    if (skip_ > 0) return Event::kNeedMore;
  }

  if (!collecting_) {
    if (header_filled_ == 0 && input->size() >= kFrameHeaderSize) {
      header_ = DecodeFrameHeader(reinterpret_cast<const uint8_t*>(input->data()));
      input->remove_prefix(kFrameHeaderSize);
    } else {
      const size_t taken = std::min<size_t>(kFrameHeaderSize - header_filled_, input->size());
      if (taken > 0) std::memcpy(header_bytes_ + header_filled_, input->data(), taken);
      input->remove_prefix(taken);
      header_filled_ += static_cast<uint8_t>(taken);
      if (header_filled_ < kFrameHeaderSize) return Event::kNeedMore;
      header_ = DecodeFrameHeader(header_bytes_);
      header_filled_ = 0;
    }
    if (header_.length > max_message_) {
      skip_ = header_.length;
      *frame = Frame{.header = header_, .data = {}};
      return Event::kOverlong;
    }
    if (input->size() >= header_.length) {
      *frame = Frame{.header = header_, .data = input->substr(0, header_.length)};
      input->remove_prefix(header_.length);
      return Event::kFrame;
    }
    collecting_ = true;
  }

  const size_t taken = std::min<size_t>(header_.length - data_.size(), input->size());
  data_.append(input->data(), taken);
  input->remove_prefix(taken);
  if (data_.size() < header_.length) return Event::kNeedMore;
  collecting_ = false;
  delivered_ = true;
  *frame = Frame{.header = header_, .data = data_};
  return Event::kFrame;
}

}  // namespace bothy::ttrpc
