// A network card over the kernel's data path, on a tap of the test's own network namespace: what a
// driver that breaks the rules brings about, and memory that comes and goes. In the lab.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/open_backend.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/unique_fd.h"
#include "virtio/net/wire.h"
#include "virtio/testing/net_device_fixture.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using testing::DriverQueue;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kMac;
using testing::WithHeader;

// For local experiments (IEEE 802): nobody's but the tests'.
constexpr uint16_t kTestType = 0x88B5;

class VhostPathTest : public testing::NetDeviceTest {
 protected:
  VhostPathTest() {
    CHECK(::unshare(CLONE_NEWNET) == 0);
    // The host says nothing by itself.
    const UniqueFd quiet(
        ::open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC));
    CHECK(::write(quiet.get(), "1", 1) == 1);
  }

  [[nodiscard]] std::unique_ptr<net::Backend> OpenTap() {
    net::BackendConfig config;
    config.where = net::TapOptions{"tap0"};
    auto backend = net::OpenBackend(config, kPairs, *loop_);
    CHECK_OK(backend.status());
    host_ = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(kTestType)));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kTestType);
    address.sll_ifindex = static_cast<int>(::if_nametoindex("tap0"));
    CHECK(::bind(host_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return *std::move(backend);
  }
  // A card that is served by the kernel, or isn't there.
  void UseTap() {
    Reset();
    device_.reset();
    backend_ = nullptr;
    auto device = NetDevice::Create({.name = "net0", .mac = kMac, .kernel_path = KernelPath::kOn},
                                    OpenTap(), *ram_, *loop_);
    CHECK_OK(device.status());
    device_ = *std::move(device);
    device_->Resume();
  }
  [[nodiscard]] std::string DataPath() { return Inspected<std::string>("data_path"); }

  static Bytes TestFrame(size_t payload) {
    Bytes frame = testing::Frame(kMac, payload);
    StoreBe<uint16_t>(&frame[12], kTestType);
    return frame;
  }
  void SendFromHost(const Bytes& frame) {
    CHECK(::send(host_.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size()));
  }
  Bytes ReceiveOnHost() {
    Bytes frame(70'000);
    const ssize_t size = ::recv(host_.get(), frame.data(), frame.size(), 0);
    CHECK(size >= 0);
    frame.resize(static_cast<size_t>(size));
    return frame;
  }
  // Through the kernel, both ways; the receive buffer is at `buffer`.
  void ExpectTraffic(uint64_t buffer = kReceive) {
    ASSERT_EQ(DataPath(), "vhost-net");
    const Bytes out = WithHeader(TestFrame(100));
    Write(kFrame, out);
    const std::array<Buffer, 1> buffers = {{{kFrame, static_cast<uint32_t>(out.size())}}};
    ASSERT_TRUE(drivers_[TransmitIndex(0)].Add(buffers).has_value());
    Ring(TransmitIndex(0));
    EXPECT_EQ(ReceiveOnHost(), TestFrame(100));
    transport_.AwaitInterrupt(TransmitIndex(0));
    EXPECT_TRUE(drivers_[TransmitIndex(0)].TakeUsed().has_value());

    Offer(buffer, 4096);
    Ring(ReceiveIndex(0));
    SendFromHost(TestFrame(200));
    transport_.AwaitInterrupt(ReceiveIndex(0));
    const auto used = drivers_[ReceiveIndex(0)].TakeUsed();
    ASSERT_TRUE(used.has_value());
    const Bytes got = Read(buffer, used->written);
    EXPECT_EQ(Bytes(got.begin() + kHeaderBytes, got.end()), TestFrame(200));
  }
  void AwaitBroken() {
    loop_->RunUntil([this] { return !transport_.broken.empty(); });
  }

 private:
  UniqueFd host_;
};

TEST_F(VhostPathTest, CarriesFramesAgainAfterAReset) {
  UseTap();
  for (int i = 0; i < 3; ++i) {
    Activate();
    ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
    StartAnew();
  }
  // A tap that is there, but for a driver whose buffers the kernel can't merge.
  Activate(~kFeatureMergeableBuffers);
  EXPECT_EQ(DataPath(), "own");
}

// The kernel stops at what breaks the rules, and the device says what it is and needs a reset.
TEST_F(VhostPathTest, ADriverThatBreaksTheRulesBreaksItsCard) {
  UseTap();
  struct Case {
    const char* what;
    std::function<void()> misbehave;
  };
  const auto offer = [this](uint16_t queue, const DriverQueue::RawDescriptor& descriptor) {
    drivers_[queue].RawSet(0, descriptor);
    drivers_[queue].RawOffer(0);
    Ring(queue);
  };
  const std::vector<Case> cases = {
      {"a head out of range",
       [&] {
         drivers_[TransmitIndex(0)].RawOffer(kRingSize);
         Ring(TransmitIndex(0));
       }},
      {"more chains than there can be",
       [&] {
         for (int i = 0; i <= kRingSize; ++i) drivers_[TransmitIndex(0)].RawOffer(0);
         Ring(TransmitIndex(0));
       }},
      {"memory that isn't there",
       [&] { offer(TransmitIndex(0), {.address = uint64_t{1} << 40, .length = 100}); }},
      {"memory that ends too early",
       [&] { offer(TransmitIndex(0), {.address = (2 << 20) - 50, .length = 100}); }},
      {"a chain without an end",
       [&] {
         offer(TransmitIndex(0), {.address = kFrame, .length = 100, .flags = DriverQueue::kNext});
       }},
      {"an indirect table of no whole descriptors",
       [&] {
         offer(TransmitIndex(0),
               {.address = kFrame, .length = 17, .flags = DriverQueue::kIndirect});
       }},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    transport_.broken.clear();
    Activate();
    ASSERT_EQ(DataPath(), "vhost-net");
    one.misbehave();
    AwaitBroken();
    EXPECT_THAT(transport_.broken, HasSubstr("queue "));
    EXPECT_EQ(DataPath(), "own");
    EXPECT_THAT(transport_.lent, IsEmpty());
    StartAnew();
    Activate();
    ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
    StartAnew();
  }
}

TEST_F(VhostPathTest, AReceiveBufferThatIsToBeReadBreaksItsCard) {
  UseTap();
  Activate();
  const std::array<Buffer, 1> readable = {{{kReceive, 4096}}};
  ASSERT_TRUE(drivers_[ReceiveIndex(0)].Add(readable).has_value());
  Ring(ReceiveIndex(0));
  SendFromHost(TestFrame(100));
  AwaitBroken();
  EXPECT_THAT(transport_.broken, HasSubstr("queue 0: a receive buffer"));
  StartAnew();
  // The frame is still to be had.
  Activate();
  Offer(kReceive, 4096);
  Ring(ReceiveIndex(0));
  transport_.AwaitInterrupt(ReceiveIndex(0));
  EXPECT_TRUE(drivers_[ReceiveIndex(0)].TakeUsed().has_value());
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
}

// Nothing is wrong with it to our own path, which goes on until the driver resets the card.
TEST_F(VhostPathTest, WhatOnlyTheKernelRefusesTakesOurOwnPath) {
  UseTap();
  Activate();
  const Bytes out = WithHeader(TestFrame(100));
  Write(kFrame, out);
  // The kernel wants no buffer to write into behind a frame.
  const std::array<Buffer, 2> buffers = {
      {{kFrame, static_cast<uint32_t>(out.size())}, {kReceive, 16, true}}};
  ASSERT_TRUE(drivers_[TransmitIndex(0)].Add(buffers).has_value());
  Ring(TransmitIndex(0));
  loop_->RunUntil([this] { return drivers_[TransmitIndex(0)].TakeUsed().has_value(); });
  EXPECT_EQ(ReceiveOnHost(), TestFrame(100));
  EXPECT_THAT(transport_.broken, IsEmpty());
  EXPECT_EQ(DataPath(), "own");
  EXPECT_TRUE(Send(out));
  EXPECT_EQ(ReceiveOnHost(), TestFrame(100));
  device_->Quiesce([] {});
  device_->Resume();
  EXPECT_EQ(DataPath(), "own");
  StartAnew();
  Activate();
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
}

TEST_F(VhostPathTest, MemoryThatHasComeIsTheKernelsToo) {
  constexpr uint64_t kNew = uint64_t{1} << 32;
  std::vector<uint8_t> more(1 << 16);
  UseTap();
  Activate();
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
  CHECK_OK(ram_->AddDeviceMemory(kNew, more, memory::Access::kWrite));
  device_->MemoryChanged();
  EXPECT_EQ(Inspected<uint64_t>("vhost_starts"), 2U);
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic(kNew));
  CHECK_OK(ram_->RemoveDeviceMemory(kNew));
  device_->MemoryChanged();
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
  // What is gone is nobody's any more.
  Offer(kNew, 4096);
  Ring(ReceiveIndex(0));
  SendFromHost(TestFrame(100));
  AwaitBroken();
  EXPECT_THAT(transport_.broken, HasSubstr("queue 0"));
}

TEST_F(VhostPathTest, MemoryThatIsReadOnlyKeepsTheKernelAwayWhileItIsThere) {
  constexpr uint64_t kNew = uint64_t{1} << 32;
  std::vector<uint8_t> more(1 << 16);
  UseTap();
  Activate();
  ASSERT_EQ(DataPath(), "vhost-net");
  CHECK_OK(ram_->AddDeviceMemory(kNew, more, memory::Access::kRead));
  device_->MemoryChanged();
  EXPECT_EQ(DataPath(), "own");
  EXPECT_THAT(Inspected<std::string>("why_not_vhost"), HasSubstr("read-only"));
  EXPECT_TRUE(Send(WithHeader(TestFrame(100))));
  EXPECT_EQ(ReceiveOnHost(), TestFrame(100));
  CHECK_OK(ram_->RemoveDeviceMemory(kNew));
  device_->MemoryChanged();
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
}

// A card that was made without the kernel's path offers RSS, and has it after a move.
TEST_F(VhostPathTest, ADriverThatSteersKeepsOurOwnPath) {
  Activate();
  ASSERT_NE(device_->features() & kFeatureRss, 0U);
  // All to the second queue.
  Bytes config = {0x3F, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 40};
  config.resize(config.size() + 40, 0x6D);
  ASSERT_EQ(Command(kClassMultiqueue, kMultiqueueRss, config), kControlOk);
  device_->SetLink(false, nullptr);
  (void)device_->ExchangeBackend(OpenTap());
  device_->SetLink(true, nullptr);
  EXPECT_EQ(DataPath(), "own");
  EXPECT_THAT(Inspected<std::string>("why_not_vhost"), HasSubstr("RSS"));
  Offer(kReceive, 4096, 1);
  Ring(ReceiveIndex(1));
  SendFromHost(TestFrame(100));
  loop_->RunUntil([this] { return drivers_[ReceiveIndex(1)].TakeUsed().has_value(); });
  // Until it leaves the choice to the host.
  ASSERT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {2, 0}), kControlOk);
  EXPECT_EQ(DataPath(), "vhost-net");
  ASSERT_EQ(Command(kClassMultiqueue, kMultiqueuePairsSet, {1, 0}), kControlOk);
  ASSERT_NO_FATAL_FAILURE(ExpectTraffic());
  // And cards that it may serve from the beginning aren't offered it.
  UseTap();
  EXPECT_EQ(device_->features() & kFeatureRss, 0U);
}

}  // namespace
}  // namespace bothy::virtio
