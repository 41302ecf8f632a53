// A byte stream, decoded whole and decoded in pieces, gives the same frames; what the frames carry
// is read as the generated code reads it.
//
// Input: two bytes that choose the message limit and the size of the pieces, then the stream.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/check.h"
#include "ttrpc.pb.h"
#include "ttrpc/envelope.h"
#include "ttrpc/frame.h"

namespace {

using bothy::ttrpc::FrameDecoder;
using bothy::ttrpc::FrameHeader;

struct Seen {
  FrameDecoder::Event event;
  FrameHeader header;
  std::string data;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> Decode(std::string_view stream, size_t piece, uint32_t max_message,
                         bool* at_boundary) {
  FrameDecoder decoder(max_message);
  std::vector<Seen> seen;
  while (!stream.empty()) {
    std::string_view input = stream.substr(0, piece);
    stream.remove_prefix(input.size());
    FrameDecoder::Frame frame;
    for (FrameDecoder::Event event;
         (event = decoder.Next(&input, &frame)) != FrameDecoder::Event::kNeedMore;) {
      CHECK((frame.header.length > max_message) == (event == FrameDecoder::Event::kOverlong));
      CHECK(event == FrameDecoder::Event::kOverlong || frame.data.size() == frame.header.length);
      seen.push_back({event, frame.header, std::string(frame.data)});
    }
    CHECK(input.empty());
  }
  *at_boundary = decoder.AtFrameBoundary();
  return seen;
}

void CheckRequest(const std::string& data) {
  bothy::ttrpc::Request oracle;
  bothy::ttrpc::RequestView view;
  const bool good = oracle.ParseFromString(data);
  CHECK(DecodeRequest(data, &view).ok() == good);
  if (!good) return;
  CHECK(view.service == oracle.service());
  CHECK(view.method == oracle.method());
  CHECK(view.payload == oracle.payload());
  CHECK(view.timeout_nano == oracle.timeout_nano());
  CHECK(view.metadata.size() == static_cast<size_t>(oracle.metadata_size()));
  for (int i = 0; i < oracle.metadata_size(); ++i) {
    CHECK(view.metadata[i].first == oracle.metadata(i).key());
    CHECK(view.metadata[i].second == oracle.metadata(i).value());
  }
}

void CheckResponse(const std::string& data) {
  bothy::ttrpc::Response oracle;
  bothy::ttrpc::ResponseView view;
  const bool good = oracle.ParseFromString(data);
  CHECK(DecodeResponse(data, &view).ok() == good);
  if (!good) return;
  CHECK(view.payload == oracle.payload());
  CHECK(view.status.ok() == (oracle.status().code() == 0));
  if (!view.status.ok()) CHECK(std::string(view.status.message()) == oracle.status().message());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static google::protobuf::LogSilencer* const silencer = new google::protobuf::LogSilencer;
  static_cast<void>(silencer);
  if (size < 2) return 0;
  const uint32_t max_message = bytes[0] < 128 ? bytes[0] : bothy::ttrpc::kMaxMessage;
  const size_t piece = std::max<size_t>(bytes[1], 1);
  const std::string_view stream(reinterpret_cast<const char*>(bytes) + 2, size - 2);

  bool whole_ends_clean = false;
  bool pieces_end_clean = false;
  const auto whole =
      Decode(stream, std::max<size_t>(stream.size(), 1), max_message, &whole_ends_clean);
  CHECK(Decode(stream, piece, max_message, &pieces_end_clean) == whole);
  CHECK(whole_ends_clean == pieces_end_clean);
  for (const Seen& frame : whole) {
    CheckRequest(frame.data);
    CheckResponse(frame.data);
  }
  return 0;
}
