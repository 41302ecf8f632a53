#include "pci/root_complex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "memory/layout.h"
#include "pci/host_bridge.h"
#include "support/endian.h"

namespace bothy::pci {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// A function whose every byte says where it is, and that keeps what was written.
class FakeFunction final : public Function {
 public:
  struct Written {
    uint16_t offset;
    uint32_t value;
    uint32_t enabled;
    bool operator==(const Written&) const = default;
  };
  explicit FakeFunction(uint8_t tag = 0) : tag_(tag) {}
  uint32_t ReadConfig(uint16_t offset) override {
    return static_cast<uint32_t>(tag_) << 24 | static_cast<uint32_t>(offset) << 8 | 0x5A;
  }
  void WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) override {
    written.push_back({offset, value, enabled});
  }
  void Reset() override { ++resets; }

  std::vector<Written> written;
  int resets = 0;

 private:
  uint8_t tag_;
};

constexpr uint64_t EcamOffset(uint64_t bus, uint64_t device, uint64_t function, uint64_t offset) {
  return bus << 20 | device << 15 | function << 12 | offset;
}

class RootComplexTest : public ::testing::Test {
 protected:
  static std::vector<uint8_t> Read(chipset::IoDevice& device, uint64_t offset, size_t size) {
    std::vector<uint8_t> data(size, 0xCC);
    device.Read(offset, data);
    return data;
  }
  static uint32_t Read32(chipset::IoDevice& device, uint64_t offset) {
    return LoadLe<uint32_t>(Read(device, offset, 4).data());
  }
  static void Write(chipset::IoDevice& device, uint64_t offset, std::vector<uint8_t> data) {
    device.Write(offset, data);
  }
  static void Write32(chipset::IoDevice& device, uint64_t offset, uint32_t value) {
    std::vector<uint8_t> data(4);
    StoreLe(data.data(), value);
    device.Write(offset, data);
  }

  RootComplex complex_;
  chipset::IoDevice& ports_ = complex_.config_ports();
  chipset::IoDevice& ecam_ = complex_.ecam();
};

TEST_F(RootComplexTest, BothWaysReachTheHostBridge) {
  HostBridge bridge({memory::kEcamBase, memory::kEcamReserved});
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, bridge).ok());
  Write32(ports_, 0, 0x8000'0000);
  EXPECT_EQ(Read32(ports_, 4), 0x29C0'8086U);
  EXPECT_EQ(Read32(ecam_, 0), 0x29C0'8086U);
  EXPECT_EQ(Read32(ecam_, 8) >> 16, 0x0600U);
  EXPECT_EQ(Read32(ecam_, 0x60), memory::kEcamBase | 1);
}

TEST_F(RootComplexTest, AbsentFunctionsReadAllOnesAndSwallowWrites) {
  for (const uint64_t where : {EcamOffset(0, 0, 0, 0), EcamOffset(0, 31, 7, 4092),
                               EcamOffset(1, 0, 0, 0), EcamOffset(255, 31, 7, 0)}) {
    EXPECT_THAT(Read(ecam_, where, 4), Each(0xFF));
    Write32(ecam_, where, 0);
  }
  Write32(ports_, 0, 0x8000'F800);
  EXPECT_EQ(Read32(ports_, 4), kAllOnes);
  Write32(ports_, 4, 0);
}

TEST_F(RootComplexTest, FindsFunctionsByDeviceAndFunction) {
  FakeFunction a(1);
  FakeFunction b(2);
  ASSERT_TRUE(complex_.root_bus().Attach({3, 0}, a).ok());
  ASSERT_TRUE(complex_.root_bus().Attach({31, 7}, b).ok());
  EXPECT_EQ(Read32(ecam_, EcamOffset(0, 3, 0, 0x40)), 0x0100'405AU);
  EXPECT_EQ(Read32(ecam_, EcamOffset(0, 31, 7, 0xFFC)), 0x020F'FC5AU);
  Write32(ports_, 0, 0x8000'0000 | 31 << 11 | 7 << 8 | 0x10);
  EXPECT_EQ(Read32(ports_, 4), 0x0200'105AU);
}

TEST_F(RootComplexTest, ConfigAddressTakesDoubleWordsOnly) {
  Write32(ports_, 0, 0xFFFF'FFFF);
  EXPECT_EQ(Read32(ports_, 0), 0x80FF'FFFCU);
  for (const uint64_t offset : {0, 1, 2, 3}) {
    Write(ports_, offset, {0});
    EXPECT_THAT(Read(ports_, offset, 1), ElementsAre(0xFF));
  }
  Write(ports_, 0, {0, 0});
  EXPECT_THAT(Read(ports_, 0, 2), Each(0xFF));
  EXPECT_EQ(Read32(ports_, 0), 0x80FF'FFFCU);
}

TEST_F(RootComplexTest, ConfigDataIsDeadWhileDisabled) {
  FakeFunction function;
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, function).ok());
  Write32(ports_, 0, 0x0000'0000);
  EXPECT_EQ(Read32(ports_, 4), kAllOnes);
  Write32(ports_, 4, 1);
  EXPECT_TRUE(function.written.empty());
}

TEST_F(RootComplexTest, ConfigDataTakesBytesAndWordsAtTheirPlace) {
  FakeFunction function(7);
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, function).ok());
  Write32(ports_, 0, 0x8000'00FC);
  EXPECT_THAT(Read(ports_, 4, 1), ElementsAre(0x5A));
  EXPECT_THAT(Read(ports_, 7, 1), ElementsAre(7));
  EXPECT_THAT(Read(ports_, 5, 2), ElementsAre(0xFC, 0));
  Write(ports_, 6, {0x12, 0x34});
  EXPECT_THAT(function.written, ElementsAre(FakeFunction::Written{0xFC, 0x3412'0000, 0xFFFF'0000}));
}

TEST_F(RootComplexTest, AccessesAcrossConfigDatasEdgesDoNothing) {
  FakeFunction function;
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, function).ok());
  Write32(ports_, 0, 0x8000'0000);
  EXPECT_THAT(Read(ports_, 2, 4), Each(0xFF));
  EXPECT_THAT(Read(ports_, 6, 4), Each(0xFF));
  EXPECT_THAT(Read(ports_, 0, 8), Each(0xFF));
  EXPECT_THAT(Read(ports_, 4, 8), Each(0xFF));
  Write32(ports_, 2, 0);
  Write32(ports_, 6, 0);
  Write(ports_, 4, {0, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_TRUE(function.written.empty());
  EXPECT_EQ(Read32(ports_, 0), 0x8000'0000U);
}

TEST_F(RootComplexTest, EcamTakesAccessesApartAtDoubleWords) {
  FakeFunction function(9);
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, function).ok());
  EXPECT_THAT(Read(ecam_, 0x102, 4), ElementsAre(0x01, 0x09, 0x5A, 0x04));
  EXPECT_THAT(Read(ecam_, 0x103, 2), ElementsAre(0x09, 0x5A));
  EXPECT_THAT(Read(ecam_, 0x100, 8), ElementsAre(0x5A, 0x00, 0x01, 9, 0x5A, 0x04, 0x01, 9));
  Write(ecam_, 0x103, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_THAT(function.written,
              ElementsAre(FakeFunction::Written{0x100, 0x0100'0000, 0xFF00'0000},
                          FakeFunction::Written{0x104, 0x0504'0302, 0xFFFF'FFFF},
                          FakeFunction::Written{0x108, 0x0008'0706, 0x00FF'FFFF}));
}

TEST_F(RootComplexTest, EcamAccessThatLeavesAFunctionEndsInItsNeighbour) {
  FakeFunction function(9);
  ASSERT_TRUE(complex_.root_bus().Attach({0, 0}, function).ok());
  EXPECT_THAT(Read(ecam_, 0xFFE, 4), ElementsAre(0x0F, 0x09, 0xFF, 0xFF));
  Write(ecam_, 0xFFE, {1, 2, 3, 4});
  EXPECT_THAT(function.written,
              ElementsAre(FakeFunction::Written{0xFFC, 0x0201'0000, 0xFFFF'0000}));
}

TEST_F(RootComplexTest, ResetReachesEveryFunctionAndConfigAddress) {
  FakeFunction function;
  ASSERT_TRUE(complex_.root_bus().Attach({5, 0}, function).ok());
  Write32(ports_, 0, 0x8000'2800);
  complex_.Reset();
  EXPECT_EQ(function.resets, 1);
  EXPECT_EQ(Read32(ports_, 0), 0U);
}

TEST(PciBusTest, APlaceHoldsOneFunction) {
  Bus bus;
  FakeFunction a;
  FakeFunction b;
  ASSERT_TRUE(bus.Attach({1, 0}, a).ok());
  EXPECT_EQ(bus.Attach({1, 0}, b).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(bus.Attach({1, 1}, b).ok());
  EXPECT_TRUE(bus.Detach({1, 0}).ok());
  EXPECT_EQ(bus.Detach({1, 0}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(bus.ReadConfig({1, 0}, 0), kAllOnes);
  EXPECT_TRUE(bus.Attach({1, 0}, a).ok());
}

TEST(PciBusTest, PlacesThatArentOnABusAreRefused) {
  Bus bus;
  FakeFunction function;
  EXPECT_EQ(bus.Attach({32, 0}, function).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bus.Attach({0, 8}, function).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bus.Detach({32, 0}).code(), absl::StatusCode::kNotFound);
}

TEST(PciBusTest, FunctionsComeAndGoWhileVcpusLook) {
  Bus bus;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 2; ++i) {
    vcpus.emplace_back([&] {
      while (!stop) {
        const uint32_t value = bus.ReadConfig({2, 0}, 0x40);
        if (value != kAllOnes && value != 0x0100'405A) ++wrong;
      }
    });
  }
  for (int round = 0; round < 1000; ++round) {
    auto function = std::make_unique<FakeFunction>(uint8_t{1});
    ASSERT_TRUE(bus.Attach({2, 0}, *function).ok());
    ASSERT_TRUE(bus.Detach({2, 0}).ok());
  }
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(ConfigRegistersTest, EveryBitFollowsItsRule) {
  ConfigRegisters registers;
  registers.Define(0x10,
                   {.reset = 0xF0F0'0001, .writable = 0xFF, .write_one_to_clear = 0xF000'0000});
  registers.Write(0x10, 0xFFFF'FFFF, 0xFFFF'FFFF);
  EXPECT_EQ(registers.Read(0x10), 0x00F0'00FFU);
  registers.Reset();
  EXPECT_EQ(registers.Read(0x10), 0xF0F0'0001U);
  registers.Write(0x10, 0, 0xFFFF'FFFF);
  EXPECT_EQ(registers.Read(0x10), 0xF0F0'0000U);
}

TEST(ConfigRegistersTest, OnlyEnabledBytesAreWritten) {
  ConfigRegisters registers;
  registers.Define(0x10,
                   {.reset = 0xFF00'0000, .writable = 0xFFFF, .write_one_to_clear = 0xFF00'0000});
  registers.Write(0x10, 0xFFFF'FFFF, 0x0000'FF00);
  EXPECT_EQ(registers.Read(0x10), 0xFF00'FF00U);
}

TEST(ConfigRegistersTest, UndefinedRegistersReadZeroAndKeepNothing) {
  ConfigRegisters registers;
  registers.Write(0xFFC, 0xFFFF'FFFF, 0xFFFF'FFFF);
  EXPECT_EQ(registers.Read(0xFFC), 0U);
}

TEST(ConfigRegistersTest, TheDeviceSetsWhatTheGuestCant) {
  ConfigRegisters registers;
  registers.Define(0x04, {});
  registers.Set(0x04, 0xFFFF'FFFF, 0x0010'0000);
  EXPECT_EQ(registers.Read(0x04), 0x0010'0000U);
}

TEST(HostBridgeTest, TellsWhereEcamIsInSizesItsRegisterKnows) {
  const auto pciexbar = [](uint64_t mib) {
    return HostBridge({memory::kEcamBase, mib * memory::kMiB}).ReadConfig(0x60);
  };
  EXPECT_EQ(pciexbar(256), 0xE000'0001U);
  EXPECT_EQ(pciexbar(128), 0xE000'0003U);
  EXPECT_EQ(pciexbar(64), 0xE000'0005U);
  EXPECT_EQ(pciexbar(1), 0U);
}

TEST(HostBridgeTest, ItsIdentityCantBeWritten) {
  HostBridge bridge({memory::kEcamBase, memory::kEcamReserved});
  for (uint16_t offset = 0; offset < kConfigSpaceBytes; offset += 4) {
    const uint32_t before = bridge.ReadConfig(offset);
    bridge.WriteConfig(offset, ~before, 0xFFFF'FFFF);
    if (offset != kCommandRegister) {
      EXPECT_EQ(bridge.ReadConfig(offset), before) << offset;
    }
  }
  EXPECT_EQ(bridge.ReadConfig(kCommandRegister), kCommandMemory | kCommandBusMaster | kCommandSerr);
  bridge.Reset();
  EXPECT_EQ(bridge.ReadConfig(kCommandRegister), kCommandMemory | kCommandBusMaster);
}

}  // namespace
}  // namespace bothy::pci
