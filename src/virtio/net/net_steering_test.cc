// Receive-side scaling of a network card: frames in the queues that its driver says, whichever of
// the backend's they come from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/endian.h"
#include "virtio/net/wire.h"
#include "virtio/testing/net_device_fixture.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using testing::DriverQueue;
using testing::FakeBackend;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kMac;
using testing::NetDeviceTest;
using ::testing::SizeIs;
using testing::WithHeader;

class NetSteeringTest : public NetDeviceTest {
 protected:
  // Flows whose frames are alike but for a port, of hashes that differ in their lowest bit.
  Bytes Flow(bool odd, size_t payload = 10) {
    Bytes frame = testing::Frame(kMac, 0);
    frame.insert(frame.end(), {0x45, 0, 0, 0, 0,  0, 0, 0, 64, 17, 0, 0,  //
                               10,   0, 0, 1, 10, 0, 0, 2});
    // All of the key but for the bit that the last bit of the second port meets is zero.
    frame.insert(frame.end(), {0x12, 0x34, 0, static_cast<uint8_t>(odd ? 1 : 0), 0, 0, 0, 0});
    for (size_t i = 0; i < payload; ++i) frame.push_back(static_cast<uint8_t>(i * 3));
    return frame;
  }
  static Bytes Config(uint16_t of_even, uint16_t of_odd, uint16_t unclassified = 0,
                      uint16_t transmit_queues = 2) {
    Bytes config(55);
    StoreLe<uint32_t>(config.data(), kHashUdp4);
    StoreLe<uint16_t>(&config[4], 1);
    StoreLe<uint16_t>(&config[6], unclassified);
    StoreLe<uint16_t>(&config[8], of_even);
    StoreLe<uint16_t>(&config[10], of_odd);
    StoreLe<uint16_t>(&config[12], transmit_queues);
    config[14] = 40;
    // The hash of a set bit i is the key's bits i to i + 31: bit 95 is the last port's last.
    config[15 + (95 + 31) / 8] = 0x80 >> ((95 + 31) % 8);
    return config;
  }
  uint8_t Steer(const Bytes& config) { return Command(kClassMultiqueue, kMultiqueueRss, config); }
  // Buffers for `frames` frames to a pair.
  void OfferTo(uint16_t pair, int frames, uint32_t bytes = 4096) {
    for (int i = 0; i < frames; ++i, next_ += 0x2000) Offer(next_, bytes, pair);
    Ring(ReceiveIndex(pair));
  }
  // The length of what the driver of a pair got next, without the header; nothing.
  std::optional<size_t> Got(uint16_t pair) {
    const auto used = drivers_[ReceiveIndex(pair)].TakeUsed();
    if (!used.has_value()) return std::nullopt;
    return used->written - kHeaderBytes;
  }

 private:
  uint64_t next_ = kReceive;
};

TEST_F(NetSteeringTest, IsOfferedWithItsMeasuresWhereThereIsAChoice) {
  EXPECT_NE(device_->features() & kFeatureRss, 0U);
  std::array<uint8_t, 7> config{};
  device_->ReadConfig(kConfigMostKeyBytes, config);
  EXPECT_GE(config[0], 40);
  EXPECT_GE(LoadLe<uint16_t>(&config[1]), 128);
  EXPECT_EQ(LoadLe<uint32_t>(&config[3]), kHashTypes);
  // One pair leaves none.
  auto device = NetDevice::Create({.name = "net1", .mac = kMac},
                                  std::make_unique<FakeBackend>(uint16_t{1}), *ram_, *loop_);
  ASSERT_TRUE(device.ok());
  EXPECT_EQ((*device)->features() & kFeatureRss, 0U);
  (*device)->ReadConfig(kConfigMostKeyBytes, config);
  EXPECT_THAT(config, ::testing::Each(0));
}

TEST_F(NetSteeringTest, FramesGoWhereTheTableSays) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  EXPECT_EQ(backend_->used_pairs, 2);
  OfferTo(0, 4);
  OfferTo(1, 4);
  for (const uint16_t from : {0, 1}) {
    SCOPED_TRACE(from);
    network(from).Arrive(WithHeader(Flow(false, 20)));
    EXPECT_EQ(Got(0), Flow(false, 20).size());
    EXPECT_EQ(Got(1), std::nullopt);
    network(from).Arrive(WithHeader(Flow(true, 30)));
    EXPECT_EQ(Got(0), std::nullopt);
    EXPECT_EQ(Got(1), Flow(true, 30).size());
  }
  EXPECT_EQ(transport_.interrupts[ReceiveIndex(0)], 2);
  EXPECT_EQ(transport_.interrupts[ReceiveIndex(1)], 2);
  // The other way round.
  ASSERT_EQ(Steer(Config(1, 0)), kControlOk);
  network(0).Arrive(WithHeader(Flow(false, 40)));
  EXPECT_EQ(Got(1), Flow(false, 40).size());
  // What has no hash.
  OfferTo(1, 2);
  ASSERT_EQ(Steer(Config(0, 0, 1)), kControlOk);
  network(0).Arrive(WithHeader(testing::Frame(kMac, 50)));
  EXPECT_EQ(Got(1), testing::Frame(kMac, 50).size());
}

TEST_F(NetSteeringTest, AFrameThatIsHandedOnIsWhole) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  OfferTo(0, 20);
  OfferTo(1, 3);
  const Bytes sent = WithHeader(Flow(true, 9000));
  network(0).Arrive(sent);
  Bytes got;
  uint64_t at = kReceive + 20 * 0x2000;
  while (const auto used = drivers_[ReceiveIndex(1)].TakeUsed()) {
    const Bytes part = Read(at, used->written);
    got.insert(got.end(), part.begin(), part.end());
    at += 0x2000;
  }
  ASSERT_EQ(got.size(), sent.size());
  EXPECT_EQ(LoadLe<uint16_t>(&got[kHeaderBuffers]), 3);
  EXPECT_TRUE(std::equal(got.begin() + kHeaderBytes, got.end(), sent.begin() + kHeaderBytes));
}

TEST_F(NetSteeringTest, AQueueWithoutBuffersIsWaitedForAndLosesNothing) {
  for (const uint64_t features : {kUsual, ~kFeatureMergeableBuffers}) {
    SCOPED_TRACE(features);
    Activate(features);
    ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
    // No queue has any: they come in all the same.
    network(0).Arrive(WithHeader(Flow(true, 60)));
    network(0).Arrive(WithHeader(Flow(false, 70)));
    network(0).Arrive(WithHeader(Flow(true, 80)));
    Turn();
    OfferTo(0, 1, 8192);
    EXPECT_EQ(Got(0), std::nullopt);
    OfferTo(1, 1, 8192);
    EXPECT_EQ(Got(1), Flow(true, 60).size());
    EXPECT_EQ(Got(0), Flow(false, 70).size());
    EXPECT_EQ(Got(1), std::nullopt);
    // Steered elsewhere meanwhile.
    OfferTo(0, 1, 8192);
    ASSERT_EQ(Steer(Config(1, 0)), kControlOk);
    EXPECT_EQ(Got(0), Flow(true, 80).size());
    StartAnew();
  }
}

TEST_F(NetSteeringTest, TheFiltersComeFirst) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  ASSERT_EQ(Command(kClassReceive, kReceivePromiscuous, {0}), kControlOk);
  OfferTo(0, 1);
  OfferTo(1, 1);
  Bytes others = Flow(true);
  others[5] ^= 1;
  network(0).Arrive(WithHeader(others));
  EXPECT_EQ(Got(1), std::nullopt);
  network(0).Arrive(WithHeader(Flow(true)));
  EXPECT_EQ(Got(1), Flow(true).size());
}

TEST_F(NetSteeringTest, CommandsThatBreakARuleChangeNothing) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  const std::string table = Inspected<std::string>("rss/table");
  EXPECT_EQ(table, "0 1");
  for (const Bytes& bad :
       {Bytes{}, Bytes(54), Config(0, 2), Config(2, 0), Config(0, 0, 2), Config(0, 0, 0, 0),
        Config(0, 0, 0, 3), Bytes(60'000, 0xFF), Bytes(200'000, 0)}) {
    EXPECT_EQ(Steer(bad), kControlError);
  }
  // Reports of hashes aren't offered.
  EXPECT_EQ(Command(kClassMultiqueue, 2, Bytes(53)), kControlError);
  EXPECT_EQ(Inspected<std::string>("rss/table"), table);
  EXPECT_THAT(transport_.broken, IsEmpty());
  OfferTo(1, 1);
  network(0).Arrive(WithHeader(Flow(true)));
  EXPECT_EQ(Got(1), Flow(true).size());
  // Nor is it there for a driver that didn't ask for it.
  StartAnew();
  Activate(~kFeatureRss);
  EXPECT_EQ(Steer(Config(0, 1)), kControlError);
}

// Nothing is steered to a queue that the driver didn't set up, nor taken from one's backend.
TEST_F(NetSteeringTest, ADriverMaySendThroughMoreThanItReceivesThrough) {
  std::vector<std::unique_ptr<Virtqueue>> queues;
  for (DriverQueue& driver : drivers_) queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
  queues[ReceiveIndex(1)].reset();
  device_->Activate(transport_, device_->features(), std::move(queues));
  EXPECT_EQ(Steer(Config(0, 1)), kControlError);
  EXPECT_EQ(Steer(Config(0, 0, 1)), kControlError);
  ASSERT_EQ(Steer(Config(0, 0, 0, 2)), kControlOk);
  EXPECT_EQ(backend_->used_pairs, 1);
  EXPECT_TRUE(Send(WithHeader(Flow(true)), 1));
  EXPECT_THAT(network(0).sent, SizeIs(1));
  // And waits there for room as any other.
  network(0).room = 0;
  EXPECT_FALSE(Send(WithHeader(Flow(true)), 1));
  network(0).MakeRoom(1);
  Turn();
  EXPECT_THAT(network(0).sent, SizeIs(2));
}

TEST_F(NetSteeringTest, TheLastCommandCounts) {
  Activate();
  EXPECT_EQ(Inspected<std::string>("receive_steering"), "host");
  ASSERT_EQ(Steer(Config(1, 1, 1)), kControlOk);
  EXPECT_EQ(Inspected<std::string>("receive_steering"), "driver");
  EXPECT_TRUE(Inspected<bool>("rss/hash_types/udp4"));
  EXPECT_FALSE(Inspected<bool>("rss/hash_types/tcp4"));
  EXPECT_EQ(Inspected<uint64_t>("rss/unclassified"), 1U);
  OfferTo(0, 2);
  OfferTo(1, 2);
  network(0).Arrive(WithHeader(Flow(false)));
  EXPECT_TRUE(Got(1).has_value());
  EXPECT_EQ(Inspected<uint64_t>("pairs/0/handed_on_frames"), 1U);
  ASSERT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {2, 0}), kControlOk);
  EXPECT_EQ(Inspected<std::string>("receive_steering"), "host");
  network(0).Arrive(WithHeader(Flow(false)));
  EXPECT_TRUE(Got(0).has_value());
  ASSERT_EQ(Steer(Config(1, 1, 1)), kControlOk);
  Reset();
  EXPECT_EQ(Inspected<std::string>("receive_steering"), "host");
}

// The next network has one queue, and all of the driver's get frames all the same.
TEST_F(NetSteeringTest, SteeringOutlivesAMoveToAnotherNetwork) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  device_->SetLink(false, nullptr);
  auto next = std::make_unique<FakeBackend>(uint16_t{1});
  FakeBackend* const raw = next.get();
  (void)device_->ExchangeBackend(std::move(next));
  device_->SetLink(true, nullptr);
  OfferTo(0, 1);
  OfferTo(1, 1);
  raw->queue(0).Arrive(WithHeader(Flow(true)));
  raw->queue(0).Arrive(WithHeader(Flow(false)));
  EXPECT_TRUE(Got(0).has_value());
  EXPECT_TRUE(Got(1).has_value());
  EXPECT_TRUE(Send(WithHeader(Flow(true)), 1));
  EXPECT_THAT(raw->queue(0).sent, SizeIs(1));
}

TEST_F(NetSteeringTest, ABadBufferOfAnotherQueueBreaksTheDevice) {
  Activate();
  ASSERT_EQ(Steer(Config(0, 1)), kControlOk);
  OfferTo(0, 1);
  Offer(kReceive + 0x20000, 11, 1);
  network(0).Arrive(WithHeader(Flow(true)));
  EXPECT_THAT(transport_.broken, HasSubstr("queue 2: a receive buffer"));
}

}  // namespace
}  // namespace bothy::virtio
