#include "virtio/net/net_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/check.h"
#include "support/endian.h"
#include "virtio/net/wire.h"
#include "virtio/testing/net_device_fixture.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using testing::DriverQueue;
using ::testing::ElementsAre;
using testing::FakeBackend;
using testing::Frame;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kMac;
using testing::NetDeviceTest;
using ::testing::SizeIs;
using testing::WithHeader;

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
  Activate(~(kFeatureMultiqueue | kFeatureRss));
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
  StartAnew();
  // Segments without checksums are nothing (5.1.3.1).
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

// Other queues and a pause come between two turns, whichever way the flood goes.
TEST_F(NetDeviceTest, AFloodTakesItsTurns) {
  constexpr int kTurn = 64;
  constexpr int kFlood = 200;
  Activate();
  for (int i = 0; i < kFlood; ++i) network().Arrive(WithHeader(Frame(kMac, 10)));
  const Bytes frame = WithHeader(Frame(kMac, 10));
  Write(kFrame, frame);
  const std::array<Buffer, 1> out = {{{kFrame, static_cast<uint32_t>(frame.size())}}};
  for (uint64_t i = 0; i < kFlood; ++i) {
    Offer(kReceive + 0x1000 * i, 4096);
    ASSERT_TRUE(drivers_[TransmitIndex(0)].Add(out).has_value());
  }
  int received = 0;
  const auto count = [&] {
    while (drivers_[ReceiveIndex(0)].TakeUsed().has_value()) ++received;
  };
  device_->OnDoorbell(ReceiveIndex(0));
  device_->OnDoorbell(TransmitIndex(0));
  count();
  EXPECT_EQ(received, kTurn);
  EXPECT_THAT(network().sent, SizeIs(kTurn));
  device_->Quiesce([] {});
  Turn();
  count();
  EXPECT_EQ(received, kTurn);
  EXPECT_THAT(network().sent, SizeIs(kTurn));
  device_->Resume();
  Turn();
  count();
  EXPECT_EQ(received, kFlood);
  EXPECT_THAT(network().sent, SizeIs(kFlood));
}

}  // namespace
}  // namespace bothy::virtio
