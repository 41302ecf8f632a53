// Frames whose checksums and segments the device makes itself, looked at as their receiver would.
#include "virtio/net/software_offload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "net/ethernet.h"
#include "support/endian.h"
#include "virtio/net/wire.h"
#include "virtio/testing/net_device_fixture.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using testing::FakeBackend;
using testing::FakeFrameQueue;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::WithHeader;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kFirstSequence = 1000;
constexpr uint16_t kFirstId = 0x1000;
constexpr uint8_t kReduced = 0x80;  // CWR
constexpr uint8_t kAck = 0x10;
constexpr uint8_t kPush = 0x08;
constexpr uint8_t kFin = 0x01;

// What a frame is made of: 4 or 6, TCP or UDP, so many VLAN tags.
struct Shape {
  int ip = 4;
  bool udp = false;
  int tags = 0;

  [[nodiscard]] size_t network() const { return 14 + 4 * static_cast<size_t>(tags); }
  [[nodiscard]] size_t transport() const { return network() + (ip == 4 ? 20 : 40); }
  [[nodiscard]] size_t payload() const { return transport() + (udp ? 8 : 20); }
  [[nodiscard]] uint8_t protocol() const { return udp ? net::kProtocolUdp : net::kProtocolTcp; }
  [[nodiscard]] size_t checksum() const { return udp ? 6 : 16; }  // within its header
  [[nodiscard]] size_t addresses() const { return network() + (ip == 4 ? 12 : 8); }
  [[nodiscard]] size_t addresses_bytes() const { return ip == 4 ? 8 : 32; }
};

void Append(Bytes& to, const Bytes& what) { to.insert(to.end(), what.begin(), what.end()); }

// The sum of RFC 1071, not complemented.
uint16_t Folded(std::span<const uint8_t> bytes, uint64_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}
uint16_t PseudoSum(const Shape& shape, std::span<const uint8_t> frame) {
  return Folded(frame.subspan(shape.addresses(), shape.addresses_bytes()),
                shape.protocol() + frame.size() - shape.transport());
}

Bytes Payload(size_t size) {
  Bytes payload(size);
  for (size_t i = 0; i < size; ++i) payload[i] = static_cast<uint8_t>(i * 7);
  return payload;
}

// As drivers leave it to the device: the pseudo header's sum where the checksum belongs.
Bytes Frame(const Shape& shape, size_t payload) {
  Bytes frame = {2, 2, 2, 2, 2, 2, 0x52, 0x54, 0, 0, 0, 1};
  for (int i = 0; i < shape.tags; ++i) {
    Append(frame, {static_cast<uint8_t>(i + 1 == shape.tags ? 0x81 : 0x88),
                   static_cast<uint8_t>(i + 1 == shape.tags ? 0x00 : 0xA8), 0, 5});
  }
  if (shape.ip == 4) {
    Append(frame, {0x08, 0, 0x45, 0, 0, 0, kFirstId >> 8, 0, 0x40, 0, 64, shape.protocol(), 0, 0});
    Append(frame, {10, 0, 0, 1, 10, 0, 0, 2});
  } else {
    Append(frame, {0x86, 0xDD, 0x60, 0, 0, 0, 0, 0, shape.protocol(), 64});
    for (const uint8_t last : {1, 2}) {
      Append(frame, {0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77, last});
    }
  }
  Append(frame, {0x12, 0x34, 0, 80});
  if (shape.udp) {
    Append(frame, Bytes(4));
    StoreBe<uint16_t>(&frame[shape.transport() + 4], static_cast<uint16_t>(8 + payload));
  } else {
    Append(frame, {0, 0, kFirstSequence >> 8, kFirstSequence & 0xFF, 0, 0, 0, 1, 0x50,
                   kReduced | kAck | kPush | kFin, 1, 0, 0, 0, 0, 0});
  }
  Append(frame, Payload(payload));
  if (shape.ip == 4) {
    StoreBe<uint16_t>(&frame[shape.network() + 2],
                      static_cast<uint16_t>(frame.size() - shape.network()));
    const uint16_t sum = Folded(std::span(frame).subspan(shape.network(), 20));
    StoreBe<uint16_t>(&frame[shape.network() + 10], static_cast<uint16_t>(~sum));
  } else {
    StoreBe<uint16_t>(&frame[shape.network() + 4],
                      static_cast<uint16_t>(frame.size() - shape.transport()));
  }
  StoreBe<uint16_t>(&frame[shape.transport() + shape.checksum()], PseudoSum(shape, frame));
  return frame;
}

FrameHeader Header(const Shape& shape, uint8_t type, uint16_t segment) {
  FrameHeader header{};
  header[kHeaderFlags] = kNeedsChecksum;
  header[kHeaderGsoType] = type;
  StoreLe<uint16_t>(&header[kHeaderGsoSize], segment);
  StoreLe<uint16_t>(&header[kHeaderLength], static_cast<uint16_t>(shape.payload()));
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], static_cast<uint16_t>(shape.transport()));
  StoreLe<uint16_t>(&header[kHeaderChecksumOffset], static_cast<uint16_t>(shape.checksum()));
  return header;
}
uint8_t TypeOf(const Shape& shape) {
  if (shape.udp) return kGsoUdp;
  return shape.ip == 4 ? kGsoTcp4 : kGsoTcp6;
}

// Frames that leave nothing to be done, without their headers.
std::vector<Bytes> Finish(Bytes frame, const FrameHeader& header) {
  SoftwareOffload offload;
  std::vector<Bytes> finished;
  if (!offload.Begin(frame, header)) return finished;
  Bytes one;
  while (offload.Next(one)) {
    EXPECT_EQ(Bytes(one.begin(), one.begin() + kHeaderBytes), Bytes(kHeaderBytes, 0));
    finished.emplace_back(one.begin() + kHeaderBytes, one.end());
  }
  return finished;
}

// What a receiver checks of every frame: lengths and checksums.
void ExpectSound(const Shape& shape, std::span<const uint8_t> frame) {
  ASSERT_GE(frame.size(), shape.payload());
  if (shape.ip == 4) {
    EXPECT_EQ(LoadBe<uint16_t>(&frame[shape.network() + 2]), frame.size() - shape.network());
    EXPECT_EQ(Folded(frame.subspan(shape.network(), 20)), 0xFFFF);
  } else {
    EXPECT_EQ(LoadBe<uint16_t>(&frame[shape.network() + 4]), frame.size() - shape.transport());
  }
  if (shape.udp) {
    EXPECT_EQ(LoadBe<uint16_t>(&frame[shape.transport() + 4]), frame.size() - shape.transport());
    // 0 would say that there is none.
    EXPECT_NE(LoadBe<uint16_t>(&frame[shape.transport() + 6]), 0);
  }
  EXPECT_EQ(Folded(frame.subspan(shape.transport()), PseudoSum(shape, frame)), 0xFFFF);
}

class SoftwareOffloadTest : public ::testing::TestWithParam<std::tuple<int, bool, int>> {
 protected:
  const Shape shape_{std::get<0>(GetParam()), std::get<1>(GetParam()), std::get<2>(GetParam())};
};
INSTANTIATE_TEST_SUITE_P(Shapes, SoftwareOffloadTest,
                         ::testing::Combine(::testing::Values(4, 6), ::testing::Bool(),
                                            ::testing::Values(0, 1, 2)),
                         [](const auto& shape) {
                           return std::string(std::get<1>(shape.param) ? "Udp" : "Tcp") +
                                  std::to_string(std::get<0>(shape.param)) + "Tags" +
                                  std::to_string(std::get<2>(shape.param));
                         });

TEST_P(SoftwareOffloadTest, MakesSegments) {
  const Bytes whole = Frame(shape_, 2500);
  const std::vector<Bytes> segments =
      Finish(whole, Header(shape_, static_cast<uint8_t>(TypeOf(shape_)), 1000));
  ASSERT_THAT(segments, SizeIs(3));
  Bytes payload;
  for (size_t i = 0; i < segments.size(); ++i) {
    SCOPED_TRACE(i);
    const Bytes& frame = segments[i];
    ASSERT_EQ(frame.size(), shape_.payload() + (i < 2 ? 1000 : 500));
    ASSERT_NO_FATAL_FAILURE(ExpectSound(shape_, frame));
    // Addresses, tags and types; addresses of the network; ports.
    EXPECT_TRUE(std::equal(frame.begin(),
                           frame.begin() + static_cast<ptrdiff_t>(shape_.network() + 2),
                           whole.begin()));
    EXPECT_TRUE(std::equal(frame.begin() + static_cast<ptrdiff_t>(shape_.addresses()),
                           frame.begin() + static_cast<ptrdiff_t>(shape_.transport() + 4),
                           whole.begin() + static_cast<ptrdiff_t>(shape_.addresses())));
    if (shape_.ip == 4) {
      EXPECT_EQ(LoadBe<uint16_t>(&frame[shape_.network() + 4]), kFirstId + i);
    }
    if (!shape_.udp) {
      EXPECT_EQ(LoadBe<uint32_t>(&frame[shape_.transport() + 4]), kFirstSequence + 1000 * i);
      EXPECT_EQ(frame[shape_.transport() + 13], i == 0   ? kReduced | kAck
                                                : i == 1 ? kAck
                                                         : kAck | kPush | kFin);
    }
    payload.insert(payload.end(), frame.begin() + static_cast<ptrdiff_t>(shape_.payload()),
                   frame.end());
  }
  EXPECT_EQ(payload, Payload(2500));
}

TEST_P(SoftwareOffloadTest, FinishesAChecksum) {
  // An odd length, and those whose sum is 0 among all that one byte can do.
  for (int byte = 0; byte < 256; ++byte) {
    Bytes frame = Frame(shape_, 101);
    frame.back() = static_cast<uint8_t>(byte);
    const std::vector<Bytes> finished = Finish(frame, Header(shape_, kGsoNone, 0));
    ASSERT_THAT(finished, SizeIs(1));
    ASSERT_NO_FATAL_FAILURE(ExpectSound(shape_, finished[0]));
    frame[shape_.transport() + shape_.checksum()] =
        finished[0][shape_.transport() + shape_.checksum()];
    frame[shape_.transport() + shape_.checksum() + 1] =
        finished[0][shape_.transport() + shape_.checksum() + 1];
    EXPECT_EQ(frame, finished[0]);
  }
}

TEST_P(SoftwareOffloadTest, WhatIsNotWhatItSaysIsRefused) {
  const Bytes frame = Frame(shape_, 2500);
  const auto type = TypeOf(shape_);
  const auto refuses = [&](const Bytes& bytes, const FrameHeader& header) {
    return Finish(bytes, header).empty();
  };
  EXPECT_FALSE(refuses(frame, Header(shape_, type, SoftwareOffload::kLeastSegment)));
  EXPECT_TRUE(refuses(frame, Header(shape_, type, SoftwareOffload::kLeastSegment - 1)));
  for (const uint8_t other : {kGsoTcp4, kGsoTcp6, kGsoUdp}) {
    EXPECT_EQ(refuses(frame, Header(shape_, other, 1000)), other != type);
  }
  // Every end that is before the payload.
  for (size_t size = 0; size < shape_.payload(); ++size) {
    EXPECT_TRUE(refuses(Bytes(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(size)),
                        Header(shape_, type, 1000)));
  }
  for (const size_t start : {size_t{0}, shape_.network(), frame.size() - 2, size_t{0xFFFF}}) {
    FrameHeader header = Header(shape_, type, 1000);
    StoreLe<uint16_t>(&header[kHeaderChecksumStart], static_cast<uint16_t>(start));
    EXPECT_TRUE(refuses(frame, header));
  }
  FrameHeader header = Header(shape_, type, 1000);
  StoreLe<uint16_t>(&header[kHeaderChecksumOffset], 2);
  EXPECT_TRUE(refuses(frame, header));
  if (!shape_.udp) {
    Bytes options = Frame(shape_, 4);
    options[shape_.transport() + 12] = 0xF0;  // a header of 60 bytes
    EXPECT_TRUE(refuses(options, Header(shape_, type, 1000)));
    options[shape_.transport() + 12] = 0x40;
    EXPECT_TRUE(refuses(options, Header(shape_, type, 1000)));
  }
}

TEST(UdpOffloadTest, ASumOfZeroIsSentAsOnes) {
  for (const int ip : {4, 6}) {
    SCOPED_TRACE(ip);
    const Shape shape{.ip = ip, .udp = true};
    Bytes frame = Frame(shape, 1100);
    // Makes up for all the rest of the first segment.
    uint8_t* const last = &frame[shape.payload() + 998];
    StoreBe<uint16_t>(last, 0);
    const std::vector<Bytes> before = Finish(frame, Header(shape, kGsoUdp, 1000));
    ASSERT_THAT(before, SizeIs(2));
    StoreBe<uint16_t>(last, LoadBe<uint16_t>(&before[0][shape.transport() + 6]));
    const std::vector<Bytes> segments = Finish(frame, Header(shape, kGsoUdp, 1000));
    ASSERT_THAT(segments, SizeIs(2));
    EXPECT_EQ(LoadBe<uint16_t>(&segments[0][shape.transport() + 6]), 0xFFFF);
    ASSERT_NO_FATAL_FAILURE(ExpectSound(shape, segments[0]));
  }
}

// A card that has been moved to a network that can't do what its driver leaves to be done.
using MovedCardTest = testing::NetDeviceTest;

TEST_F(MovedCardTest, DoesItselfWhatTheNextNetworkCannot) {
  const Shape shape;
  Activate();
  device_->SetLink(false, nullptr);
  auto next = std::make_unique<FakeBackend>(uint16_t{1}, net::Offloads{});
  FakeFrameQueue& network = next->queue(0);
  (void)device_->ExchangeBackend(std::move(next));
  device_->SetLink(true, nullptr);
  network.room = 2;  // and the third in a while
  const auto header = Header(shape, kGsoTcp4 | kGsoEcn, 1000);
  EXPECT_FALSE(Send(WithHeader(Frame(shape, 2500), header)));
  network.MakeRoom(10);
  Turn();
  EXPECT_TRUE(drivers_[TransmitIndex(0)].TakeUsed().has_value());
  const std::vector<Bytes> segments = Finish(Frame(shape, 2500), header);
  ASSERT_THAT(network.sent, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(network.sent[i], WithHeader(segments.at(i)));

  network.sent.clear();
  EXPECT_TRUE(Send(WithHeader(Frame(shape, 101), Header(shape, kGsoNone, 0))));
  ASSERT_THAT(network.sent, SizeIs(1));
  ExpectSound(shape, std::span(network.sent[0]).subspan(kHeaderBytes));

  network.sent.clear();
  EXPECT_TRUE(Send(WithHeader(Frame(shape, 2500), Header(shape, kGsoTcp6, 1000))));
  EXPECT_THAT(network.sent, IsEmpty());
  EXPECT_THAT(transport_.broken, IsEmpty());
}

}  // namespace
}  // namespace bothy::virtio
