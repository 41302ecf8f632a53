#include "ttrpc/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bothy::ttrpc {
namespace {

using ::testing::ElementsAre;
using Event = FrameDecoder::Event;

std::string FrameBytes(FrameHeader header, const std::string& data) {
  header.length = static_cast<uint32_t>(data.size());
  std::string bytes(kFrameHeaderSize, '\0');
  EncodeFrameHeader(header, reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes + data;
}

struct Seen {
  Event event;
  FrameHeader header;
  std::string data;
  bool operator==(const Seen&) const = default;
};

// Feeds each piece on its own and collects what comes out.
std::vector<Seen> Decode(FrameDecoder& decoder, const std::vector<std::string>& pieces) {
  std::vector<Seen> seen;
  for (const std::string& piece : pieces) {
    std::string_view input = piece;
    FrameDecoder::Frame frame;
    for (Event event; (event = decoder.Next(&input, &frame)) != Event::kNeedMore;) {
      seen.push_back({event, frame.header, std::string(frame.data)});
    }
    EXPECT_TRUE(input.empty());
  }
  return seen;
}

TEST(FrameHeaderTest, IsBigEndianAndTenBytes) {
  const uint8_t bytes[kFrameHeaderSize] = {0x00, 0x01, 0x02, 0x03, 0x80, 0x00, 0x00, 0x05, 1, 2};
  const FrameHeader header = DecodeFrameHeader(bytes);
  EXPECT_EQ(header,
            (FrameHeader{.length = 0x010203, .stream_id = 0x80000005, .type = 1, .flags = 2}));
  uint8_t again[kFrameHeaderSize];
  EncodeFrameHeader(header, again);
  EXPECT_THAT(again, ::testing::ElementsAreArray(bytes));
}

TEST(FrameDecoderTest, DecodesFramesCutAtEveryByte) {
  const std::string stream = FrameBytes({.stream_id = 1, .type = kFrameRequest}, "hello") +
                             FrameBytes({.stream_id = 3, .type = kFrameData, .flags = 5}, "") +
                             FrameBytes({.stream_id = 5, .type = kFrameRequest}, "world!");
  const std::vector<Seen> expected = {
      {Event::kFrame, {.length = 5, .stream_id = 1, .type = kFrameRequest}, "hello"},
      {Event::kFrame, {.length = 0, .stream_id = 3, .type = kFrameData, .flags = 5}, ""},
      {Event::kFrame, {.length = 6, .stream_id = 5, .type = kFrameRequest}, "world!"},
  };
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      FrameDecoder decoder;
      EXPECT_EQ(Decode(decoder, {stream.substr(0, first), stream.substr(first, second - first),
                                 stream.substr(second)}),
                expected)
          << first << ", " << second;
      EXPECT_TRUE(decoder.AtFrameBoundary());
    }
  }
}

TEST(FrameDecoderTest, DecodesOneByteAtATime) {
  const std::string stream = FrameBytes({.stream_id = 1, .type = kFrameRequest}, "hello");
  std::vector<std::string> pieces;
  for (const char byte : stream) pieces.emplace_back(1, byte);
  FrameDecoder decoder;
  EXPECT_THAT(Decode(decoder, pieces),
              ElementsAre(Seen{Event::kFrame, {.length = 5, .stream_id = 1, .type = 1}, "hello"}));
}

TEST(FrameDecoderTest, WholeFramesAreNotCopied) {
  const std::string stream = FrameBytes({.stream_id = 1, .type = kFrameRequest}, "hello");
  FrameDecoder decoder;
  std::string_view input = stream;
  FrameDecoder::Frame frame;
  ASSERT_EQ(decoder.Next(&input, &frame), Event::kFrame);
  EXPECT_EQ(frame.data.data(), stream.data() + kFrameHeaderSize);
}

TEST(FrameDecoderTest, TakesAMessageOfExactlyTheLimit) {
  const std::string data(kMaxMessage, 'x');
  const std::string stream = FrameBytes({.stream_id = 1, .type = kFrameRequest}, data);
  FrameDecoder decoder;
  const auto seen = Decode(decoder, {stream.substr(0, 100000), stream.substr(100000)});
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].event, Event::kFrame);
  EXPECT_EQ(seen[0].data, data);
}

TEST(FrameDecoderTest, ReportsAnOverlongFrameOnceAndSkipsItsData) {
  const std::string overlong = FrameBytes({.stream_id = 7, .type = kFrameRequest}, "0123456789");
  const std::string next = FrameBytes({.stream_id = 9, .type = kFrameRequest}, "ok");
  const std::string stream = overlong + next;
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    FrameDecoder decoder(/*max_message=*/9);
    EXPECT_THAT(Decode(decoder, {stream.substr(0, cut), stream.substr(cut)}),
                ElementsAre(Seen{Event::kOverlong, {.length = 10, .stream_id = 7, .type = 1}, ""},
                            Seen{Event::kFrame, {.length = 2, .stream_id = 9, .type = 1}, "ok"}))
        << cut;
  }
}

TEST(FrameDecoderTest, SkipsTheLongestFrameThatAHeaderCanAnnounce) {
  FrameDecoder decoder;
  const std::string header = "\xff\xff\xff\xff" + std::string("\0\0\0\1\1\0", 6);
  EXPECT_THAT(
      Decode(decoder, {header}),
      ElementsAre(Seen{
          Event::kOverlong, {.length = 0xffffffff, .stream_id = 1, .type = kFrameRequest}, ""}));
  const std::string chunk(1 << 20, 'x');
  for (uint64_t sent = 0; sent + chunk.size() < 0xffffffff; sent += chunk.size()) {
    std::string_view input = chunk;
    FrameDecoder::Frame frame;
    ASSERT_EQ(decoder.Next(&input, &frame), Event::kNeedMore);
  }
  EXPECT_FALSE(decoder.AtFrameBoundary());
  EXPECT_LE(decoder.BufferedBytes(), 64u);
  const std::string rest(chunk.size() - 1, 'x');
  EXPECT_THAT(Decode(decoder, {rest + FrameBytes({.stream_id = 3, .type = 1}, "z")}),
              ElementsAre(Seen{Event::kFrame, {.length = 1, .stream_id = 3, .type = 1}, "z"}));
}

TEST(FrameDecoderTest, MemoryFollowsWhatArrivedNotWhatIsAnnounced) {
  FrameDecoder decoder;
  const std::string stream =
      FrameBytes({.stream_id = 1, .type = kFrameRequest}, std::string(kMaxMessage, 'x'));
  Decode(decoder, {stream.substr(0, 1000)});
  EXPECT_LE(decoder.BufferedBytes(), 4000u);
  Decode(decoder, {stream.substr(1000), FrameBytes({.stream_id = 3, .type = 1}, "")});
  EXPECT_LE(decoder.BufferedBytes(), 64u) << "a long message's buffer outlives it";
}

TEST(FrameDecoderTest, KnowsWhetherTheStreamIsCut) {
  const std::string stream = FrameBytes({.stream_id = 1, .type = kFrameRequest}, "hello");
  for (size_t size = 0; size <= stream.size(); ++size) {
    FrameDecoder decoder;
    Decode(decoder, {stream.substr(0, size)});
    EXPECT_EQ(decoder.AtFrameBoundary(), size == 0 || size == stream.size()) << size;
  }
}

}  // namespace
}  // namespace bothy::ttrpc
