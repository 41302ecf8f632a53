#include "virtio/net/net_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "support/check.h"
#include "support/endian.h"
#include "virtio/net/wire.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_backend.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using testing::DriverQueue;
using ::testing::ElementsAre;
using testing::FakeBackend;
using testing::FakeFrameQueue;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Buffer = DriverQueue::Buffer;
using Bytes = FakeFrameQueue::Bytes;

constexpr MacBytes kMac = {0x02, 0, 0, 0, 0, 0x77};
constexpr uint16_t kPairs = 2;
constexpr uint16_t kRingSize = 16;
constexpr uint64_t kRings = 0x1000;
constexpr uint64_t kRingStride = 0x1000;
constexpr uint64_t kCommand = 0x40000;
constexpr uint64_t kAnswer = 0x42000;
constexpr uint64_t kFrame = 0x50000;
constexpr uint64_t kReceive = 0x80000;

class FakeTransport final : public testing::TestTransport {
 public:
  void InterruptQueue(uint16_t queue) override { ++interrupts[queue]; }
  void ConfigChanged() override { ++config_changes; }
  void NeedsReset(const absl::Status& reason) override { broken = std::string(reason.message()); }
  std::map<uint16_t, int> interrupts;
  int config_changes = 0;
  std::string broken;
};

// Ethernet: to, from, type, payload 0, 1, 2...
Bytes Frame(const MacBytes& to, size_t payload) {
  Bytes frame(to.begin(), to.end());
  frame.insert(frame.end(), {0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00});
  for (size_t i = 0; i < payload; ++i) frame.push_back(static_cast<uint8_t>(i));
  return frame;
}
Bytes WithHeader(const Bytes& frame, const FrameHeader& header = {}) {
  Bytes bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  return bytes;
}

// A driver, a device and a network, all on this thread.
class NetDeviceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kUsual = ~uint64_t{0};  // all that is offered

  NetDeviceTest() {
    for (uint16_t i = 0; i <= 2 * kPairs; ++i) {
      drivers_.emplace_back(*ram_, kRings + i * kRingStride, kRingSize);
    }
    Make(FakeBackend::kAll);
  }
  ~NetDeviceTest() override { Reset(); }

  void Make(const net::Offloads& offloads) {
    auto backend = std::make_unique<FakeBackend>(kPairs, offloads);
    backend_ = backend.get();
    auto device =
        NetDevice::Create({.name = "net0", .mac = kMac}, std::move(backend), *ram_, *loop_);
    CHECK_OK(device.status());
    device_ = *std::move(device);
    device_->Resume();
  }
  void Activate(uint64_t features = kUsual) {
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (DriverQueue& driver : drivers_) {
      queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
    }
    device_->Activate(transport_, device_->features() & features, std::move(queues));
  }
  void Reset() {
    bool done = false;
    device_->Reset([&done] { done = true; });
    CHECK(done);
    Turn();
  }
  // What was posted is done.
  void Turn() {
    for (int round = 0; round < 40; ++round) {
      bool turned = false;
      loop_->Post([&turned] { turned = true; });
      loop_->RunUntil([&turned] { return turned; });
    }
  }
  void Ring(uint16_t queue) {
    device_->OnDoorbell(queue);
    Turn();
  }

  void Write(uint64_t gpa, const Bytes& bytes) { CHECK_OK(ram_->Write(gpa, bytes)); }
  Bytes Read(uint64_t gpa, size_t size) {
    Bytes bytes(size);
    CHECK_OK(ram_->Read(gpa, bytes));
    return bytes;
  }
  // Sends a frame in pieces; whether it was given back.
  bool Send(const Bytes& bytes, uint16_t pair = 0) {
    Write(kFrame, bytes);
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t first = std::min<uint32_t>(size, 20);
    std::vector<Buffer> buffers = {{kFrame, first}};
    if (size > first) buffers.push_back({kFrame + first, size - first});
    CHECK(drivers_[TransmitIndex(pair)].Add(buffers).has_value());
    Ring(TransmitIndex(pair));
    return drivers_[TransmitIndex(pair)].TakeUsed().has_value();
  }
  FakeFrameQueue& network(uint16_t pair = 0) { return backend_->queue(pair); }
  void Offer(uint64_t gpa, uint32_t bytes, uint16_t pair = 0) {
    const std::array<Buffer, 1> buffers = {{{gpa, bytes, true}}};
    CHECK(drivers_[ReceiveIndex(pair)].Add(buffers).has_value());
  }
  uint8_t Command(uint8_t command_class, uint8_t command, const Bytes& data,
                  uint16_t queue = 2 * kPairs) {
    Bytes bytes = {command_class, command};
    bytes.insert(bytes.end(), data.begin(), data.end());
    Write(kCommand, bytes);
    Write(kAnswer, {0xEE});
    const std::array<Buffer, 2> buffers = {
        {{kCommand, static_cast<uint32_t>(bytes.size())}, {kAnswer, 1, true}}};
    CHECK(drivers_[queue].Add(buffers).has_value());
    Ring(queue);
    const auto used = drivers_[queue].TakeUsed();
    EXPECT_TRUE(used.has_value());
    return Read(kAnswer, 1)[0];
  }
  uint16_t Status() {
    std::array<uint8_t, 2> status{};
    device_->ReadConfig(kConfigStatus, status);
    return LoadLe<uint16_t>(status.data());
  }

  std::unique_ptr<memory::GuestMemory> ram_ = testing::TestRam(2 << 20);
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  FakeTransport transport_;
  std::vector<DriverQueue> drivers_;
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<NetDevice> device_;
};

TEST_F(NetDeviceTest, SendsWhatTheDriverPutsThere) {
  Activate();
  const Bytes frame = Frame({2, 2, 2, 2, 2, 2}, 100);
  EXPECT_TRUE(Send(WithHeader(frame)));
  EXPECT_THAT(network().sent, ElementsAre(WithHeader(frame)));
  EXPECT_EQ(transport_.interrupts[TransmitIndex(0)], 1);
  EXPECT_THAT(transport_.broken, IsEmpty());
}

TEST_F(NetDeviceTest, LooksOnceMoreBeforeItAsksForTheDoorbell) {
  Activate();
  const Bytes frame = WithHeader(Frame(kMac, 10));
  Write(kFrame, frame);
  DriverQueue& driver = drivers_[TransmitIndex(0)];
  const std::array<Buffer, 1> buffers = {{{kFrame, static_cast<uint32_t>(frame.size())}}};
  ASSERT_TRUE(driver.Add(buffers).has_value());
  device_->OnDoorbell(TransmitIndex(0));
  EXPECT_THAT(network().sent, SizeIs(1));
  EXPECT_TRUE(driver.DeviceWantsNoDoorbell());
  // What comes meanwhile is sent without one.
  ASSERT_TRUE(driver.Add(buffers).has_value());
  Turn();
  EXPECT_THAT(network().sent, SizeIs(2));
  EXPECT_FALSE(driver.DeviceWantsNoDoorbell());
}

TEST_F(NetDeviceTest, AnAnswerThatIsThereAtOnceIsTakenAtOnce) {
  Activate();
  Offer(kReceive, 9000);
  Ring(ReceiveIndex(0));
  network().incoming.push_back(WithHeader(Frame(kMac, 10)));
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10))));
  EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
}

TEST_F(NetDeviceTest, WaitsForRoomAndSendsEachFrameOnce) {
  Activate();
  network().room = 0;
  const Bytes frame = WithHeader(Frame(kMac, 10));
  EXPECT_FALSE(Send(frame));
  EXPECT_FALSE(Send(frame));
  network().MakeRoom(10);
  Turn();
  EXPECT_THAT(network().sent, SizeIs(2));
  EXPECT_TRUE(drivers_[TransmitIndex(0)].TakeUsed().has_value());
  EXPECT_TRUE(drivers_[TransmitIndex(0)].TakeUsed().has_value());
}

TEST_F(NetDeviceTest, AFrameThatWaitsOutlivesAPause) {
  Activate();
  network().room = 0;
  EXPECT_FALSE(Send(WithHeader(Frame(kMac, 10))));
  device_->Quiesce([] {});
  network().MakeRoom(10);
  Turn();
  EXPECT_THAT(network().sent, IsEmpty());
  device_->Resume();
  Turn();
  EXPECT_THAT(network().sent, SizeIs(1));
}

TEST_F(NetDeviceTest, DropsFramesWhoseHeaderLies) {
  Activate();
  const Bytes frame = Frame({2, 2, 2, 2, 2, 2}, 100);
  const auto sends = [&](const FrameHeader& header) {
    const size_t before = network().sent.size();
    EXPECT_TRUE(Send(WithHeader(frame, header)));
    return network().sent.size() != before;
  };
  FrameHeader good{};
  good[kHeaderFlags] = kNeedsChecksum;
  good[kHeaderGsoType] = kGsoTcp4;
  StoreLe<uint16_t>(&good[kHeaderLength], 54);
  StoreLe<uint16_t>(&good[kHeaderGsoSize], 1448);
  StoreLe<uint16_t>(&good[kHeaderChecksumStart], 34);
  StoreLe<uint16_t>(&good[kHeaderChecksumOffset], 16);
  EXPECT_TRUE(sends(good));
  FrameHeader header = good;
  StoreLe<uint16_t>(&header[kHeaderGsoSize], 0);
  EXPECT_FALSE(sends(header));
  header = good;
  header[kHeaderFlags] = 0;
  EXPECT_FALSE(sends(header));
  header = good;
  header[kHeaderGsoType] = 3;  // UFO, which is never offered
  EXPECT_FALSE(sends(header));
  header = good;
  header[kHeaderGsoType] = 0x7F;
  EXPECT_FALSE(sends(header));
  header = good;
  StoreLe<uint16_t>(&header[kHeaderLength], 0xFFFF);
  EXPECT_FALSE(sends(header));
  header = good;
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 113);
  EXPECT_FALSE(sends(header));
  header = good;
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 0xFFFF);
  StoreLe<uint16_t>(&header[kHeaderChecksumOffset], 0xFFFF);
  EXPECT_FALSE(sends(header));
  header = good;
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 4);
  EXPECT_FALSE(sends(header));
  EXPECT_THAT(transport_.broken, IsEmpty());
}

TEST_F(NetDeviceTest, OffloadsThatWereNotNegotiatedAreNotSent) {
  Activate(~(kFeatureHostTso6 | kFeatureHostEcn | kFeatureHostUso));
  FrameHeader header{};
  header[kHeaderFlags] = kNeedsChecksum;
  StoreLe<uint16_t>(&header[kHeaderGsoSize], 1448);
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 34);
  StoreLe<uint16_t>(&header[kHeaderChecksumOffset], 16);
  for (const uint8_t type : {kGsoTcp6, static_cast<uint8_t>(kGsoTcp4 | kGsoEcn), kGsoUdp}) {
    header[kHeaderGsoType] = type;
    EXPECT_TRUE(Send(WithHeader(Frame(kMac, 100), header)));
  }
  EXPECT_THAT(network().sent, IsEmpty());
  header[kHeaderGsoType] = kGsoTcp4;
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 100), header)));
  EXPECT_THAT(network().sent, SizeIs(1));
}

TEST_F(NetDeviceTest, WhatTheDriverMayLeaveUndefinedIsPutRight) {
  Activate();
  FrameHeader header{};
  header[kHeaderFlags] = 0xFE;
  StoreLe<uint16_t>(&header[kHeaderGsoSize], 7);
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 0xFFFF);
  StoreLe<uint16_t>(&header[kHeaderBuffers], 9);
  const Bytes frame = Frame(kMac, 50);
  EXPECT_TRUE(Send(WithHeader(frame, header)));
  EXPECT_THAT(network().sent, ElementsAre(WithHeader(frame)));
}

TEST_F(NetDeviceTest, RuntsAndGiantsAreDropped) {
  Activate();
  EXPECT_TRUE(Send(WithHeader(Bytes(13, 1))));
  EXPECT_TRUE(Send(WithHeader(Bytes(0, 1))));
  EXPECT_TRUE(Send(WithHeader(Bytes(net::kLargestFrame + 1, 1))));
  EXPECT_THAT(network().sent, IsEmpty());
  EXPECT_TRUE(Send(WithHeader(Bytes(net::kLargestFrame, 1))));
  EXPECT_THAT(network().sent, SizeIs(1));
}

TEST_F(NetDeviceTest, AFrameWithoutAHeaderBreaksTheDevice) {
  Activate();
  EXPECT_FALSE(Send(Bytes(11, 0)));
  EXPECT_THAT(transport_.broken, HasSubstr("at least 12"));
}

TEST_F(NetDeviceTest, ReceivesIntoOneBuffer) {
  Activate();
  Offer(kReceive, 70'000);
  Ring(ReceiveIndex(0));
  const Bytes frame = Frame(kMac, 300);
  FrameHeader header{};
  header[kHeaderFlags] = kNeedsChecksum;
  network().Arrive(WithHeader(frame, header));
  const auto used = drivers_[ReceiveIndex(0)].TakeUsed();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, kHeaderBytes + frame.size());
  StoreLe<uint16_t>(&header[kHeaderBuffers], 1);
  EXPECT_EQ(Read(kReceive, used->written), WithHeader(frame, header));
  EXPECT_EQ(transport_.interrupts[ReceiveIndex(0)], 1);
}

TEST_F(NetDeviceTest, MergesBuffersAndShowsThemAtOnce) {
  Activate();
  for (uint64_t i = 0; i < 8; ++i) Offer(kReceive + 0x10000 * i, 9000);
  Ring(ReceiveIndex(0));
  const Bytes large = WithHeader(Frame(kMac, 20'000));
  network().Arrive(large);
  Bytes got;
  std::vector<uint32_t> written;
  for (uint64_t i = 0; const auto used = drivers_[ReceiveIndex(0)].TakeUsed(); ++i) {
    written.push_back(used->written);
    const Bytes part = Read(kReceive + 0x10000 * i, used->written);
    got.insert(got.end(), part.begin(), part.end());
  }
  EXPECT_THAT(written, ElementsAre(9000, 9000, large.size() - 18'000));
  ASSERT_EQ(got.size(), large.size());
  EXPECT_EQ(LoadLe<uint16_t>(&got[kHeaderBuffers]), 3);
  EXPECT_TRUE(std::equal(got.begin() + kHeaderBytes, got.end(), large.begin() + kHeaderBytes));
  // The other buffers serve what comes next.
  network().Arrive(WithHeader(Frame(kMac, 10)));
  EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
}

// Behind a short frame a short one is expected.
TEST_F(NetDeviceTest, AFrameThatIsLongerThanExpectedIsWhole) {
  Activate();
  for (uint64_t i = 0; i < 8; ++i) Offer(kReceive + 0x10000 * i, 20'000);
  Ring(ReceiveIndex(0));
  DriverQueue& driver = drivers_[ReceiveIndex(0)];
  uint64_t buffer = 0;
  for (const size_t payload : {10, 50'000, 10, 19'974, 19'975, 60'000}) {
    SCOPED_TRACE(payload);
    const Bytes sent = WithHeader(Frame(kMac, payload));
    network().Arrive(sent);
    Bytes got;
    while (const auto used = driver.TakeUsed()) {
      const uint64_t at = kReceive + 0x10000 * buffer;
      const Bytes part = Read(at, used->written);
      got.insert(got.end(), part.begin(), part.end());
      buffer = (buffer + 1) % 8;
      Offer(at, 20'000);
    }
    Ring(ReceiveIndex(0));
    ASSERT_EQ(got.size(), sent.size());
    EXPECT_TRUE(std::equal(got.begin() + kHeaderBytes, got.end(), sent.begin() + kHeaderBytes));
  }
}

TEST_F(NetDeviceTest, AFrameWaitsUntilTheDriverHasBuffersForAllOfIt) {
  Activate();
  Offer(kReceive, 1000);
  Ring(ReceiveIndex(0));
  network().Arrive(WithHeader(Frame(kMac, 2500)));
  network().Arrive(WithHeader(Frame(kMac, 10)));
  EXPECT_FALSE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
  Offer(kReceive + 0x1000, 1000);
  Ring(ReceiveIndex(0));
  EXPECT_FALSE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
  Offer(kReceive + 0x2000, 1000);
  Offer(kReceive + 0x3000, 1000);
  Ring(ReceiveIndex(0));
  std::vector<uint32_t> written;
  while (const auto used = drivers_[ReceiveIndex(0)].TakeUsed()) written.push_back(used->written);
  EXPECT_THAT(written, ElementsAre(1000, 1000, 526, 36));
  EXPECT_EQ(Read(kReceive + 0x2000, 526).back(), static_cast<uint8_t>(2499));
}

TEST_F(NetDeviceTest, WithoutMergingAFrameHasOneBuffer) {
  Activate(~kFeatureMergeableBuffers);
  Offer(kReceive, 2000);
  Offer(kReceive + 0x1000, 2000);
  Ring(ReceiveIndex(0));
  network().Arrive(WithHeader(Frame(kMac, 3000)));  // lost
  network().Arrive(WithHeader(Frame(kMac, 10)));
  const auto used = drivers_[ReceiveIndex(0)].TakeUsed();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, kHeaderBytes + 24);
  EXPECT_EQ(network().too_long, 1U);
  EXPECT_EQ(LoadLe<uint16_t>(&Read(kReceive, kHeaderBytes)[kHeaderBuffers]), 1);
}

TEST_F(NetDeviceTest, BuffersHeldReadyAreTheDriversDuringAPause) {
  Activate();
  Offer(kReceive, 1000);
  Offer(kReceive + 0x1000, 1000);
  Ring(ReceiveIndex(0));
  network().Arrive(WithHeader(Frame(kMac, 500)));
  EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
  const Bytes before = Read(kReceive, 0x2000);
  device_->Quiesce([] {});
  network().Arrive(WithHeader(Frame(kMac, 600)));
  Ring(ReceiveIndex(0));
  EXPECT_EQ(Read(kReceive, 0x2000), before);
  device_->Resume();
  const auto used = drivers_[ReceiveIndex(0)].TakeUsed();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, kHeaderBytes + 614);
}

TEST_F(NetDeviceTest, ABufferTooSmallForAHeaderBreaksTheDevice) {
  Activate();
  Offer(kReceive, 11);
  Ring(ReceiveIndex(0));
  EXPECT_THAT(transport_.broken, HasSubstr("receive buffer"));
}

TEST_F(NetDeviceTest, FiltersByAddressOnceTheDriverSaysSo) {
  Activate();
  const MacBytes other = {2, 0, 0, 0, 0, 1};
  const MacBytes group = {1, 0, 0x5E, 0, 0, 1};
  const MacBytes broadcast = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
  const auto passes = [&](const MacBytes& to) {
    Offer(kReceive, 70'000);
    Ring(ReceiveIndex(0));
    network().Arrive(WithHeader(Frame(to, 50)));
    if (drivers_[ReceiveIndex(0)].TakeUsed().has_value()) return true;
    // The buffer is still there.
    network().Arrive(WithHeader(Frame(kMac, 50)));
    EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
    return false;
  };
  EXPECT_TRUE(passes(other));
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {0}), kControlOk);
  EXPECT_FALSE(passes(other));
  EXPECT_TRUE(passes(broadcast));
  EXPECT_FALSE(passes(group));
  EXPECT_EQ(Command(kClassReceive, kReceiveAllMulticast, {1}), kControlOk);
  EXPECT_TRUE(passes(group));
  EXPECT_EQ(Command(kClassReceive, kReceiveAllMulticast, {0}), kControlOk);
  Bytes tables = {1, 0, 0, 0};
  tables.insert(tables.end(), other.begin(), other.end());
  tables.insert(tables.end(), {1, 0, 0, 0});
  tables.insert(tables.end(), group.begin(), group.end());
  EXPECT_EQ(Command(kClassMac, kMacTableSet, tables), kControlOk);
  EXPECT_TRUE(passes(other));
  EXPECT_TRUE(passes(group));
  EXPECT_EQ(Command(kClassReceive, kReceiveNoBroadcast, {1}), kControlOk);
  EXPECT_FALSE(passes(broadcast));
  EXPECT_EQ(Command(kClassMac, kMacAddressSet, {2, 9, 9, 9, 9, 9}), kControlOk);
  std::array<uint8_t, 6> mac{};
  device_->ReadConfig(kConfigMac, mac);
  EXPECT_THAT(mac, ElementsAre(2, 9, 9, 9, 9, 9));
}

TEST_F(NetDeviceTest, FiltersVlansOnceNegotiated) {
  Activate();
  const auto passes = [&](uint16_t vlan) {
    Offer(kReceive, 70'000);
    Ring(ReceiveIndex(0));
    Bytes frame = Frame(kMac, 50);
    frame[12] = 0x81;
    StoreBe<uint16_t>(&frame[14], static_cast<uint16_t>(0xE000 | vlan));
    network().Arrive(WithHeader(frame));
    if (drivers_[ReceiveIndex(0)].TakeUsed().has_value()) return true;
    network().Arrive(WithHeader(Frame(kMac, 50)));
    EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
    return false;
  };
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {0}), kControlOk);
  EXPECT_FALSE(passes(5));
  EXPECT_EQ(Command(kClassVlan, kVlanAdd, {5, 0}), kControlOk);
  EXPECT_TRUE(passes(5));
  EXPECT_FALSE(passes(6));
  EXPECT_EQ(Command(kClassVlan, kVlanDelete, {5, 0}), kControlOk);
  EXPECT_FALSE(passes(5));
  // Then all frames are wanted.
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {1}), kControlOk);
  EXPECT_TRUE(passes(5));
}

TEST_F(NetDeviceTest, CommandsOutOfRangeAreRefused) {
  Activate();
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {}), kControlError);
  EXPECT_EQ(Command(kClassReceive, 6, {1}), kControlError);
  EXPECT_EQ(Command(kClassMac, kMacTableSet, {}), kControlError);
  EXPECT_EQ(Command(kClassMac, kMacTableSet, {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}), kControlError);
  EXPECT_EQ(Command(kClassMac, kMacTableSet, {1, 0, 0, 0, 1, 2, 3, 4, 5, 6}), kControlError);
  EXPECT_EQ(Command(kClassMac, kMacAddressSet, {1, 2, 3, 4, 5, 6}), kControlError);
  EXPECT_EQ(Command(kClassMac, kMacAddressSet, {2, 2, 3, 4, 5}), kControlError);
  EXPECT_EQ(Command(kClassMac, 2, {}), kControlError);
  EXPECT_EQ(Command(kClassVlan, kVlanAdd, {0, 0x10}), kControlError);
  EXPECT_EQ(Command(kClassVlan, 2, {1, 0}), kControlError);
  EXPECT_EQ(Command(kClassAnnounce, 1, {}), kControlError);
  EXPECT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {0, 0}), kControlError);
  EXPECT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {kPairs + 1, 0}), kControlError);
  EXPECT_EQ(Command(kClassMultiqueue, 1, Bytes(64, 1)), kControlError);
  EXPECT_EQ(Command(kClassGuestOffloads, kGuestOffloadsSet, Bytes(8, 0xFF)), kControlError);
  EXPECT_EQ(Command(kClassGuestOffloads, kGuestOffloadsSet, Bytes(4, 0)), kControlError);
  EXPECT_EQ(Command(200, 0, {}), kControlError);
  EXPECT_THAT(transport_.broken, IsEmpty());
  const std::array<Buffer, 1> short_one = {{{kCommand, 1}}};
  drivers_[2 * kPairs].Add(short_one);
  Ring(2 * kPairs);
  EXPECT_THAT(transport_.broken, HasSubstr("control queue"));
}

TEST_F(NetDeviceTest, ATableThatIsTooLongLetsAllPass) {
  Activate();
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {0}), kControlOk);
  constexpr uint8_t kMany = ReceiveFilter::kMostAddresses + 1;
  Bytes tables = {kMany, 0, 0, 0};
  for (uint8_t i = 0; i < kMany; ++i) tables.insert(tables.end(), {2, 1, 1, 1, 1, i});
  tables.insert(tables.end(), {0, 0, 0, 0});
  EXPECT_EQ(Command(kClassMac, kMacTableSet, tables), kControlOk);
  Offer(kReceive, 70'000);
  Ring(ReceiveIndex(0));
  network().Arrive(WithHeader(Frame({2, 8, 8, 8, 8, 8}, 50)));
  EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
}

TEST_F(NetDeviceTest, QueuePairsAreUsedAsTheDriverAsks) {
  Activate();
  EXPECT_EQ(backend_->used_pairs, 1);
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10)), 1));  // not in use: dropped
  EXPECT_THAT(network(1).sent, IsEmpty());
  EXPECT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {2, 0}), kControlOk);
  EXPECT_EQ(backend_->used_pairs, 2);
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10)), 1));
  EXPECT_THAT(network(1).sent, SizeIs(1));
  Offer(kReceive, 70'000, 1);
  Ring(ReceiveIndex(1));
  network(1).Arrive(WithHeader(Frame(kMac, 50)));
  EXPECT_TRUE(drivers_[ReceiveIndex(1)].TakeUsed().has_value());
}

TEST_F(NetDeviceTest, WithoutMultiqueueTheThirdQueueIsControl) {
  Activate(~kFeatureMultiqueue);
  EXPECT_EQ(Command(kClassReceive, kReceivePromiscuous, {0}, 2), kControlOk);
  EXPECT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {1, 0}, 2), kControlError);
}

TEST_F(NetDeviceTest, ReceiveOffloadsFollowTheDriver) {
  Activate(~(kFeatureGuestTso6 | kFeatureGuestUso4));
  EXPECT_EQ(
      backend_->receive_offloads,
      (net::Offloads{.checksum = true, .tso4 = true, .tso6 = false, .ecn = true, .uso = false}));
  Bytes offloads(8);
  StoreLe<uint64_t>(offloads.data(), kFeatureGuestChecksum);
  EXPECT_EQ(Command(kClassGuestOffloads, kGuestOffloadsSet, offloads), kControlOk);
  EXPECT_EQ(backend_->receive_offloads, net::Offloads{.checksum = true});
  Reset();
  // Segments without checksums are nothing (5.1.3.1).
  drivers_.clear();
  for (uint16_t i = 0; i <= 2 * kPairs; ++i) {
    drivers_.emplace_back(*ram_, kRings + i * kRingStride, kRingSize);
  }
  CHECK_OK(ram_->Zero(kRings, (2 * kPairs + 1) * kRingStride));
  Activate(~kFeatureGuestChecksum);
  EXPECT_EQ(backend_->receive_offloads, net::Offloads{});
}

TEST_F(NetDeviceTest, OffersWhatTheBackendCanDo) {
  Reset();
  Make({});
  EXPECT_EQ(device_->features() & (kFeatureChecksum | kFeatureGuestChecksum | kFeatureHostTso4 |
                                   kFeatureGuestTso4 | kFeatureHostUso),
            0U);
  EXPECT_NE(device_->features() & kFeatureMultiqueue, 0U);
}

TEST_F(NetDeviceTest, TellsOfTheLink) {
  Activate();
  EXPECT_EQ(Status(), kStatusLinkUp);
  backend_->SetLink(false);
  EXPECT_EQ(Status(), 0);
  EXPECT_EQ(transport_.config_changes, 1);
  backend_->SetLink(true);
  EXPECT_EQ(Status(), kStatusLinkUp);
  EXPECT_EQ(transport_.config_changes, 2);
}

TEST_F(NetDeviceTest, MovesToAnotherNetworkOnceTheDriverHasSeenTheLinkGo) {
  Activate();
  bool seen = false;
  device_->SetLink(false, [&seen] { seen = true; });
  EXPECT_FALSE(seen);
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10))));  // into the void
  EXPECT_EQ(Status(), 0);
  Turn();
  EXPECT_TRUE(seen);
  auto next = std::make_unique<FakeBackend>(uint16_t{1});
  FakeBackend* const raw = next.get();
  const std::unique_ptr<net::Backend> old = device_->ExchangeBackend(std::move(next));
  EXPECT_EQ(old.get(), backend_);
  EXPECT_THAT(backend_->queue(0).sent, IsEmpty());
  device_->SetLink(true, nullptr);
  EXPECT_EQ(Status(), kStatusLinkUp | kStatusAnnounce);
  EXPECT_EQ(raw->receive_offloads, FakeBackend::kAll);
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10))));
  EXPECT_THAT(raw->queue(0).sent, SizeIs(1));
  EXPECT_EQ(Command(kClassAnnounce, kAnnounceAcknowledge, {}), kControlOk);
  EXPECT_EQ(Status(), kStatusLinkUp);
}

// Its driver was told of two pairs and an MTU, which stay (5.1.4.1) until it asks anew.
TEST_F(NetDeviceTest, ANetworkOfOtherMeasuresIsUsedAsFarAsTheCardGoes) {
  const auto mtu = [this] {
    std::array<uint8_t, 2> bytes{};
    device_->ReadConfig(kConfigMtu, bytes);
    return LoadLe<uint16_t>(bytes.data());
  };
  Activate();
  EXPECT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {2, 0}), kControlOk);
  device_->SetLink(false, nullptr);
  auto next = std::make_unique<FakeBackend>(uint16_t{5});
  next->frame_mtu = 900;
  FakeBackend* const raw = next.get();
  (void)device_->ExchangeBackend(std::move(next));
  device_->SetLink(true, nullptr);
  EXPECT_EQ(raw->used_pairs, kPairs);
  EXPECT_TRUE(Send(WithHeader(Frame(kMac, 10)), 1));
  EXPECT_THAT(raw->queue(1).sent, SizeIs(1));
  // Nobody listens to those beyond.
  raw->queue(4).readable_wanted = true;
  raw->queue(4).Arrive(WithHeader(Frame(kMac, 50)));
  EXPECT_THAT(raw->queue(4).incoming, SizeIs(1));
  EXPECT_EQ(mtu(), 1500);
  Reset();
  EXPECT_EQ(mtu(), 900);
}

// A TCP frame over IPv4 with so much payload and room for its checksums, as drivers leave it.
Bytes TcpFrame(size_t payload) {
  Bytes frame = Frame({2, 2, 2, 2, 2, 2}, 0);
  frame.insert(frame.end(), {0x45, 0, 0, 0, 0x10, 0, 0x40, 0, 64, 6, 0, 0,  //
                             10,   0, 0, 1, 10,   0, 0,    2});
  StoreBe<uint16_t>(&frame[16], static_cast<uint16_t>(40 + payload));
  frame.insert(frame.end(), {0x12, 0x34, 0, 80, 0, 0, 0x03, 0xE8, 0, 0, 0, 1,  //
                             0x50, 0x99, 1, 0,  0, 0, 0,    0});               // CWR ACK PSH FIN
  for (size_t i = 0; i < payload; ++i) frame.push_back(static_cast<uint8_t>(i * 7));
  return frame;
}
uint16_t Folded(std::span<const uint8_t> bytes, uint64_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}
FrameHeader TcpHeader(uint8_t type, uint16_t segment) {
  FrameHeader header{};
  header[kHeaderFlags] = kNeedsChecksum;
  header[kHeaderGsoType] = type;
  StoreLe<uint16_t>(&header[kHeaderGsoSize], segment);
  StoreLe<uint16_t>(&header[kHeaderLength], 54);
  StoreLe<uint16_t>(&header[kHeaderChecksumStart], 34);
  StoreLe<uint16_t>(&header[kHeaderChecksumOffset], 16);
  return header;
}

TEST_F(NetDeviceTest, DoesItselfWhatTheNextNetworkCannot) {
  Activate();
  device_->SetLink(false, nullptr);
  auto next = std::make_unique<FakeBackend>(uint16_t{1}, net::Offloads{});
  FakeFrameQueue& network = next->queue(0);
  (void)device_->ExchangeBackend(std::move(next));
  device_->SetLink(true, nullptr);
  network.room = 2;  // and the third in a while
  EXPECT_FALSE(Send(WithHeader(TcpFrame(2500), TcpHeader(kGsoTcp4 | kGsoEcn, 1000))));
  network.MakeRoom(10);
  Turn();
  EXPECT_TRUE(drivers_[TransmitIndex(0)].TakeUsed().has_value());
  ASSERT_THAT(network.sent, SizeIs(3));
  const Bytes whole = TcpFrame(2500);
  Bytes payload;
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    const Bytes& sent = network.sent[i];
    EXPECT_EQ(Bytes(sent.begin(), sent.begin() + kHeaderBytes), Bytes(kHeaderBytes, 0));
    const std::span<const uint8_t> frame = std::span(sent).subspan(kHeaderBytes);
    const size_t part = i < 2 ? 1000 : 500;
    ASSERT_EQ(frame.size(), 54 + part);
    EXPECT_EQ(LoadBe<uint16_t>(&frame[16]), 40 + part);
    EXPECT_EQ(LoadBe<uint16_t>(&frame[18]), 0x1000 + i);
    EXPECT_EQ(Folded(frame.subspan(14, 20)), 0xFFFF);
    EXPECT_EQ(LoadBe<uint32_t>(&frame[38]), 1000 + 1000 * i);
    EXPECT_EQ(frame[47], i == 0 ? 0x90 : i == 1 ? 0x10 : 0x19);
    EXPECT_EQ(Folded(frame.subspan(34), Folded(frame.subspan(26, 8)) + 6 + 20 + part), 0xFFFF);
    payload.insert(payload.end(), frame.begin() + 54, frame.end());
  }
  EXPECT_EQ(payload, Bytes(whole.begin() + 54, whole.end()));

  // A checksum alone: the pseudo header's sum is there.
  network.sent.clear();
  Bytes one = TcpFrame(101);
  StoreBe<uint16_t>(&one[50], Folded(std::span(one).subspan(26, 8), 6 + 20 + 101));
  EXPECT_TRUE(Send(WithHeader(one, TcpHeader(kGsoNone, 0))));
  ASSERT_THAT(network.sent, SizeIs(1));
  const std::span<const uint8_t> frame = std::span(network.sent[0]).subspan(kHeaderBytes);
  EXPECT_EQ(Folded(frame.subspan(34), Folded(frame.subspan(26, 8)) + 6 + 20 + 101), 0xFFFF);

  // What isn't what it says.
  network.sent.clear();
  EXPECT_TRUE(Send(WithHeader(TcpFrame(2500), TcpHeader(kGsoTcp6, 1000))));
  EXPECT_TRUE(Send(WithHeader(TcpFrame(2500), TcpHeader(kGsoTcp4, 1))));
  EXPECT_TRUE(Send(WithHeader(TcpFrame(2500), TcpHeader(kGsoUdp, 1000))));
  Bytes options = TcpFrame(4);
  options[46] = 0xF0;
  EXPECT_TRUE(Send(WithHeader(options, TcpHeader(kGsoTcp4, 1000))));
  EXPECT_THAT(network.sent, IsEmpty());
  EXPECT_THAT(transport_.broken, IsEmpty());
}

TEST_F(NetDeviceTest, ADriverThatDoesNotRunIsNotWaitedFor) {
  bool seen = false;
  device_->SetLink(false, [&seen] { seen = true; });
  EXPECT_TRUE(seen);
  device_->SetLink(true, nullptr);
  Activate();
  seen = false;
  device_->SetLink(false, [&seen] { seen = true; });
  EXPECT_FALSE(seen);
  device_->StopWaitingForDriver();
  EXPECT_TRUE(seen);
  device_->SetLink(true, nullptr);
}

TEST_F(NetDeviceTest, AFloodTakesItsTurns) {
  Activate();
  for (int i = 0; i < 200; ++i) network().Arrive(WithHeader(Frame(kMac, 10)));
  for (uint64_t i = 0; i < kRingSize; ++i) Offer(kReceive + 0x1000 * i, 4096);
  Ring(ReceiveIndex(0));
  int got = 0;
  while (drivers_[ReceiveIndex(0)].TakeUsed().has_value()) ++got;
  EXPECT_EQ(got, kRingSize);
}

}  // namespace
}  // namespace bothy::virtio
