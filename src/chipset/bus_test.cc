#include "chipset/bus.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bothy::chipset {
namespace {

// Records accesses and reads as `fill`.
class FakeDevice : public IoDevice {
 public:
  explicit FakeDevice(uint8_t fill = 0) : fill_(fill) {}
  void Read(uint64_t offset, std::span<uint8_t> data) override {
    log.push_back(absl::StrCat("r", offset, "+", data.size()));
    for (uint8_t& byte : data) byte = fill_;
  }
  void Write(uint64_t offset, std::span<const uint8_t> data) override {
    log.push_back(absl::StrCat("w", offset, "+", data.size(), "=", int{data[0]}));
  }
  std::vector<std::string> log;

 private:
  const uint8_t fill_;
};

template <size_t kSize>
std::array<uint8_t, kSize> ReadBytes(const IoBus& bus, uint64_t address) {
  std::array<uint8_t, kSize> data;
  data.fill(0x55);
  bus.Read(address, data);
  return data;
}

using Log = std::vector<std::string>;

TEST(IoBusTest, GivesDevicesOffsetsWithinTheirRange) {
  IoBus bus;
  FakeDevice device(7);
  ASSERT_TRUE(bus.Register(0x3F8, 8, device).ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0x3FD)[0], 7);
  EXPECT_EQ(ReadBytes<4>(bus, 0x3FC)[3], 7);
  const std::array<uint8_t, 2> data = {9, 8};
  bus.Write(0x3F8, data);
  EXPECT_EQ(device.log, (Log{"r5+1", "r4+4", "w0+2=9"}));
}

TEST(IoBusTest, UnclaimedAddressesReadAsOnes) {
  IoBus bus;
  EXPECT_EQ(ReadBytes<4>(bus, 0)[3], 0xFF);
  FakeDevice device;
  ASSERT_TRUE(bus.Register(0x3F8, 8, device).ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0x3F7)[0], 0xFF);
  EXPECT_EQ(ReadBytes<1>(bus, 0x400)[0], 0xFF);
  // Neither side of the edge of a range answers for the other.
  EXPECT_EQ(ReadBytes<2>(bus, 0x3FF)[0], 0xFF);
  EXPECT_EQ(ReadBytes<2>(bus, 0x3F7)[1], 0xFF);
  bus.Write(0x400, std::array<uint8_t, 1>{1});
  EXPECT_TRUE(device.log.empty());
}

TEST(IoBusTest, AccessesThatWrapAroundTheAddressSpaceGoNowhere) {
  IoBus bus;
  FakeDevice low;
  FakeDevice high;
  ASSERT_TRUE(bus.Register(0, 16, low).ok());
  ASSERT_TRUE(bus.Register(UINT64_MAX - 15, 16, high).ok());
  EXPECT_EQ(ReadBytes<8>(bus, UINT64_MAX - 3)[0], 0xFF);
  EXPECT_EQ(ReadBytes<8>(bus, UINT64_MAX - 7)[0], 0);
  EXPECT_TRUE(low.log.empty());
  EXPECT_EQ(high.log, Log{"r8+8"});
}

TEST(IoBusTest, AnAccessFallsToTheSmallestRangeThatHoldsIt) {
  IoBus bus;
  FakeDevice config(1);
  FakeDevice reset(2);
  FakeDevice around(3);
  // Inner range registered first and last alike.
  ASSERT_TRUE(bus.Register(0xCF9, 1, reset).ok());
  ASSERT_TRUE(bus.Register(0xCF0, 32, around).ok());
  ASSERT_TRUE(bus.Register(0xCF8, 4, config).ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0xCF9)[0], 2);
  EXPECT_EQ(ReadBytes<4>(bus, 0xCF8)[0], 1);
  EXPECT_EQ(ReadBytes<2>(bus, 0xCF9)[0], 1);
  EXPECT_EQ(ReadBytes<1>(bus, 0xCFB)[0], 1);
  EXPECT_EQ(ReadBytes<4>(bus, 0xCF9)[0], 3);
  EXPECT_EQ(ReadBytes<1>(bus, 0xD00)[0], 3);
  EXPECT_EQ(ReadBytes<1>(bus, 0xD10)[0], 0xFF);
  EXPECT_EQ(config.log, (Log{"r0+4", "r1+2", "r3+1"}));
  EXPECT_EQ(around.log, (Log{"r9+4", "r16+1"}));
}

TEST(IoBusTest, NestedRangesMayShareAnEdge) {
  IoBus bus;
  FakeDevice outer(1);
  FakeDevice first(2);
  FakeDevice last(3);
  ASSERT_TRUE(bus.Register(0x10, 4, first).ok());
  ASSERT_TRUE(bus.Register(0x10, 16, outer).ok());
  ASSERT_TRUE(bus.Register(0x1C, 4, last).ok());
  EXPECT_EQ(ReadBytes<4>(bus, 0x10)[0], 2);
  EXPECT_EQ(ReadBytes<8>(bus, 0x10)[0], 1);
  EXPECT_EQ(ReadBytes<4>(bus, 0x1C)[0], 3);
  EXPECT_EQ(ReadBytes<1>(bus, 0x14)[0], 1);
}

TEST(IoBusTest, RefusesRangesThatCrossOrRepeat) {
  IoBus bus;
  FakeDevice device;
  ASSERT_TRUE(bus.Register(0x100, 0x10, device).ok());
  EXPECT_EQ(bus.Register(0x100, 0x10, device).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(bus.Register(0x108, 0x10, device).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(bus.Register(0xF8, 0x10, device).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(bus.Register(0x200, 0, device).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bus.Register(UINT64_MAX, 2, device).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(bus.Register(0x110, 0x10, device).ok());
}

TEST(IoBusTest, SplitsOddSizes) {
  IoBus bus;
  FakeDevice device;
  ASSERT_TRUE(bus.Register(0x100, 0x20, device).ok());
  ReadBytes<3>(bus, 0x100);
  ReadBytes<7>(bus, 0x101);
  bus.Write(0x100, std::array<uint8_t, 6>{1, 2, 3, 4, 5, 6});
  bus.Read(0x100, {});
  EXPECT_EQ(device.log, (Log{"r0+2", "r2+1", "r1+4", "r5+2", "r7+1", "w0+4=1", "w4+2=5"}));
}

TEST(IoBusTest, UnregisterUncoversWhatIsAround) {
  IoBus bus;
  FakeDevice outer(1);
  FakeDevice inner(2);
  ASSERT_TRUE(bus.Register(0x100, 0x10, outer).ok());
  ASSERT_TRUE(bus.Register(0x100, 4, inner).ok());
  EXPECT_EQ(bus.Unregister(0x100, 8).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(bus.Unregister(0x100, 4).ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0x100)[0], 1);
  ASSERT_TRUE(bus.Unregister(0x100, 0x10).ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0x100)[0], 0xFF);
  EXPECT_EQ(bus.Unregister(0x100, 0x10).code(), absl::StatusCode::kNotFound);
}

TEST(IoBusTest, ADeviceMayMoveAnotherOneFromWithinAnAccess) {
  // What a guest's write of a BAR through ECAM does.
  class Mover : public IoDevice {
   public:
    Mover(IoBus& bus, IoDevice& moved) : bus_(bus), moved_(moved) {}
    void Read(uint64_t, std::span<uint8_t>) override {}
    void Write(uint64_t, std::span<const uint8_t>) override {
      status = bus_.Unregister(0x1000, 16);
      if (status.ok()) status = bus_.Register(0x2000, 16, moved_);
    }
    absl::Status status;

   private:
    IoBus& bus_;
    IoDevice& moved_;
  };
  IoBus bus;
  FakeDevice moved(5);
  Mover mover(bus, moved);
  ASSERT_TRUE(bus.Register(0x1000, 16, moved).ok());
  ASSERT_TRUE(bus.Register(0x100, 16, mover).ok());
  bus.Write(0x100, std::array<uint8_t, 1>{0});
  EXPECT_TRUE(mover.status.ok());
  EXPECT_EQ(ReadBytes<1>(bus, 0x2000)[0], 5);
  EXPECT_EQ(ReadBytes<1>(bus, 0x1000)[0], 0xFF);
}

TEST(IoBusTest, UnregisterWaitsForAccessesInside) {
  // Sets `gone` when nothing may reach it any more; an access after that fails the test.
  class Device : public IoDevice {
   public:
    void Read(uint64_t, std::span<uint8_t> data) override {
      EXPECT_FALSE(gone.load());
      std::this_thread::yield();
      EXPECT_FALSE(gone.load());
      data[0] = 1;
    }
    void Write(uint64_t, std::span<const uint8_t>) override {}
    std::atomic<bool> gone{false};
  };
  IoBus bus;
  std::atomic<bool> stop{false};
  std::array<std::thread, 3> readers;
  for (std::thread& reader : readers) {
    reader = std::thread([&] {
      while (!stop.load()) ReadBytes<1>(bus, 0x100);
    });
  }
  for (int round = 0; round < 50; ++round) {
    Device device;
    ASSERT_TRUE(bus.Register(0x100, 1, device).ok());
    ASSERT_TRUE(bus.Unregister(0x100, 1).ok());
    device.gone = true;
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace bothy::chipset
