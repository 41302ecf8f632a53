#include "pci/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <thread>

#include "hypervisor/testing/fake_vm.h"
#include "support/endian.h"
#include "support/unique_fd.h"

namespace bothy::pci {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint16_t kBar0 = 0x10;
constexpr uint16_t kBar1 = 0x14;
constexpr uint16_t kBar4 = 0x20;
constexpr uint32_t kAll = 0xFFFF'FFFF;

// Reads as the low byte of each offset, remembers writes.
class Window final : public chipset::IoDevice {
 public:
  void Read(uint64_t offset, std::span<uint8_t> data) override {
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(offset + i + 1);
  }
  void Write(uint64_t offset, std::span<const uint8_t>) override {
    last_write = offset;
    ++writes;
  }
  std::atomic<uint64_t> last_write{0};
  std::atomic<int> writes{0};
};

class EndpointTest : public ::testing::Test {
 protected:
  EndpointTest() {
    function_.AddBar(0, {.size_bytes = 0x8000});
    function_.AddBar(4, {.size_bytes = 0x1000, .is_64_bit = false, .prefetchable = false});
    function_.AddRegion(0, 0x0000, 0x4000, window_);
    function_.AddRegion(4, 0x0000, 0x1000, other_);
    function_.AddDoorbell(0, 0x3000, event_.get());
    function_.AddMsix(0, {.vectors = 3, .table_offset = 0x4000, .pending_offset = 0x5000});
  }

  void Write(uint16_t offset, uint32_t value, uint32_t enabled = kAll) {
    function_.WriteConfig(offset, value & enabled, enabled);
  }
  void SetCommand(uint32_t bits) { Write(kCommandRegister, bits, 0xFFFF); }
  uint8_t ReadByte(uint64_t address) {
    std::array<uint8_t, 1> byte{};
    mmio_.Read(address, byte);
    return byte[0];
  }
  void WriteWord(uint64_t address, uint32_t value) {
    std::array<uint8_t, 4> bytes;
    StoreLe(bytes.data(), value);
    mmio_.Write(address, bytes);
  }
  // Offset of the capability, or 0.
  uint16_t FindCapability(uint8_t id) {
    for (uint32_t at = function_.ReadConfig(kCapabilitiesPointer); at != 0;) {
      const uint32_t header = function_.ReadConfig(static_cast<uint16_t>(at));
      if ((header & 0xFF) == id) return static_cast<uint16_t>(at);
      at = header >> 8 & 0xFF;
    }
    return 0;
  }

  hypervisor::testing::FakeVm vm_;
  chipset::IoBus mmio_;
  Window window_;
  Window other_;
  UniqueFd event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  int bus_resets_ = 0;
  Endpoint function_{{.name = "test",
                      .ids = {.vendor = 0x1AF4,
                              .device = 0x1048,
                              .subsystem_vendor = 0x1AF4,
                              .subsystem = 0x1100,
                              .class_code = 0x010000,
                              .revision = 1},
                      .on_bus_reset = [this] { ++bus_resets_; }},
                     {.vm = vm_, .mmio = mmio_}};
};

TEST_F(EndpointTest, SaysWhatItIs) {
  EXPECT_EQ(function_.ReadConfig(kIdRegister), 0x1048'1AF4U);
  EXPECT_EQ(function_.ReadConfig(kClassRegister), 0x0100'0001U);
  EXPECT_EQ(function_.ReadConfig(kSubsystemRegister), 0x1100'1AF4U);
  EXPECT_EQ(function_.ReadConfig(kHeaderRegister), 0U);
}

TEST_F(EndpointTest, BarsTellTheirSizeAndKind) {
  Write(kBar0, kAll);
  Write(kBar1, kAll);
  Write(kBar4, kAll);
  EXPECT_EQ(function_.ReadConfig(kBar0), 0xFFFF'800CU);
  EXPECT_EQ(function_.ReadConfig(kBar1), 0xFFFF'FFFFU);
  EXPECT_EQ(function_.ReadConfig(kBar4), 0xFFFF'F000U);
  EXPECT_EQ(function_.ReadConfig(0x18), 0U) << "there is no third BAR";
}

TEST_F(EndpointTest, WhatIsBehindABarAnswersWhileMemoryIsEnabled) {
  Write(kBar0, 0x0000'8000);
  Write(kBar1, 0x4);
  EXPECT_EQ(ReadByte(0x4'0000'8010), 0xFF);
  SetCommand(kCommandMemory);
  EXPECT_EQ(ReadByte(0x4'0000'8010), 0x11);
  EXPECT_EQ(ReadByte(0x4'0000'C00C), 0x01) << "MSI-X table: masked";
  EXPECT_EQ(ReadByte(0x4'0000'E000), 0xFF) << "between regions";
  SetCommand(0);
  EXPECT_EQ(ReadByte(0x4'0000'8010), 0xFF);
}

TEST_F(EndpointTest, ABarThatHoldsNothingDoesntAnswerAtAddressZero) {
  SetCommand(kCommandMemory);
  EXPECT_EQ(ReadByte(0x10), 0xFF);
}

TEST_F(EndpointTest, BarsAndDoorbellsMoveWhileTheyAnswer) {
  Write(kBar0, 0xD000'0000);
  SetCommand(kCommandMemory);
  ASSERT_EQ(vm_.doorbells().size(), 1U);
  EXPECT_EQ(vm_.doorbells()[0].guest_physical, 0xD000'3000U);
  EXPECT_TRUE(vm_.Write(0xD000'3000, 2, 0));
  Write(kBar0, 0xD100'0000);
  EXPECT_EQ(ReadByte(0xD000'0000), 0xFF);
  EXPECT_EQ(ReadByte(0xD100'0000), 0x01);
  ASSERT_EQ(vm_.doorbells().size(), 1U);
  EXPECT_EQ(vm_.doorbells()[0].guest_physical, 0xD100'3000U);
  EXPECT_EQ(vm_.doorbells()[0].event_fd, event_.get());
  SetCommand(0);
  EXPECT_THAT(vm_.doorbells(), IsEmpty());
}

TEST_F(EndpointTest, ABarOnTopOfSomethingElseAnswersOnceItMovesAway) {
  Write(kBar0, 0xD000'0000);
  Write(kBar4, 0xD000'3000);  // inside: allowed, and it hides what is below
  SetCommand(kCommandMemory);
  Write(kBar4, 0xD010'0000);
  Write(kBar0, 0xD010'0000);
  EXPECT_EQ(ReadByte(0xD010'0010), 0x11);
  // Exactly where another range is.
  Window third;
  ASSERT_TRUE(mmio_.Register(0xD020'0000, 0x4000, third).ok());
  Write(kBar0, 0xD020'0000);
  EXPECT_THAT(vm_.doorbells(), IsEmpty());
  EXPECT_FALSE(function_.bars()[0].decoded);
  EXPECT_EQ(ReadByte(0xD020'400C), 0xFF) << "all or nothing";
  Write(kBar0, 0xD030'0000);
  EXPECT_EQ(ReadByte(0xD030'0000), 0x01);
  EXPECT_TRUE(mmio_.Unregister(0xD020'0000, 0x4000).ok());
}

TEST_F(EndpointTest, ABarAtTheEndOfTheAddressSpaceIsHarmless) {
  SetCommand(kCommandMemory);
  Write(kBar0, kAll);
  Write(kBar1, kAll);
  EXPECT_EQ(ReadByte(0xFFFF'FFFF'FFFF'8000), 0x01);
  Write(kBar4, kAll);
  EXPECT_EQ(ReadByte(0xFFFF'FFFF), 0x00);
}

TEST_F(EndpointTest, ADoorbellThatCantBeAttachedLeavesTheRegionAnswering) {
  vm_.FailWith(absl::ResourceExhaustedError("none left"));
  Write(kBar0, 0xD000'0000);
  SetCommand(kCommandMemory);
  EXPECT_THAT(vm_.doorbells(), IsEmpty());
  WriteWord(0xD000'3000, 0);
  EXPECT_EQ(window_.last_write, 0x3000U);
}

TEST_F(EndpointTest, MsixNeedsEnableAndBusMaster) {
  const uint16_t msix = FindCapability(kCapabilityMsix);
  ASSERT_NE(msix, 0);
  EXPECT_EQ(function_.ReadConfig(msix) >> 16, 2U) << "three vectors";
  EXPECT_EQ(function_.ReadConfig(msix + 4), 0x4000U);
  EXPECT_EQ(function_.ReadConfig(msix + 8), 0x5000U);
  Write(kBar0, 0xD000'0000);
  SetCommand(kCommandMemory);
  WriteWord(0xD000'4010, 0xFEE0'0000);
  WriteWord(0xD000'4018, 0x33);
  WriteWord(0xD000'401C, 0);
  Write(msix, 0x8000'0000, 0xFFFF'0000);
  function_.msix_vector(1).Signal();
  EXPECT_THAT(vm_.TakeMessages(), IsEmpty());
  SetCommand(kCommandMemory | kCommandBusMaster);
  EXPECT_THAT(vm_.TakeMessages(), ElementsAre(hypervisor::MsiMessage{0xFEE0'0000, 0x33}));
  Write(msix, 0xC000'0000, 0xFFFF'0000);
  function_.msix_vector(1).Signal();
  EXPECT_THAT(vm_.TakeMessages(), IsEmpty());
  EXPECT_EQ(ReadByte(0xD000'5000), 2U);
}

TEST_F(EndpointTest, CapabilitiesAreReadOnlyAndAllFound) {
  const std::array<uint8_t, 14> body = {16, 1, 0, 0, 0, 0, 0x00, 0x30, 0, 0, 0x40, 0, 0, 0};
  const uint16_t at = function_.AddCapability(kCapabilityVendorSpecific, body);
  EXPECT_EQ(FindCapability(kCapabilityVendorSpecific), at);
  EXPECT_NE(FindCapability(kCapabilityExpress), 0);
  EXPECT_NE(FindCapability(kCapabilityMsix), 0);
  EXPECT_EQ(function_.ReadConfig(at) & 0xFFFF'00FF, 0x0110'0009U);
  EXPECT_EQ(function_.ReadConfig(at + 8), 0x0000'3000U);
  Write(at + 8, kAll);
  EXPECT_EQ(function_.ReadConfig(at + 8), 0x0000'3000U);
}

class RecordingHandler final : public ConfigHandler {
 public:
  uint32_t ReadCapability(uint16_t offset) override { return 0xAB00U + offset; }
  void WriteCapability(uint16_t offset, uint32_t value, uint32_t enabled) override {
    last = {offset, value, enabled};
  }
  std::tuple<uint16_t, uint32_t, uint32_t> last;
};

TEST_F(EndpointTest, AHandlerAnswersBehindTheFirstDoubleWordOfItsCapability) {
  RecordingHandler handler;
  const std::array<uint8_t, 18> body = {20, 5};
  const uint16_t at = function_.AddCapability(kCapabilityVendorSpecific, body, handler);
  EXPECT_EQ(function_.ReadConfig(at) >> 16, 0x0514U);
  EXPECT_EQ(function_.ReadConfig(at + 4), 0xAB04U);
  EXPECT_EQ(function_.ReadConfig(at + 16), 0xAB10U);
  EXPECT_EQ(function_.ReadConfig(at + 20), 0U);
  Write(at + 16, 0x1234, 0xFFFF);
  EXPECT_EQ(handler.last, std::make_tuple(uint16_t{16}, 0x1234U, 0xFFFFU));
}

TEST_F(EndpointTest, IntegratedEndpointsHaveNoLink) {
  const uint16_t express = FindCapability(kCapabilityExpress);
  EXPECT_EQ(function_.ReadConfig(express) >> 20 & 0xF, 0U);
  EXPECT_EQ(function_.ReadConfig(express + 0x0C) & 0x3FF, 0x11U);
  function_.SetIntegrated(true);
  EXPECT_EQ(function_.ReadConfig(express) >> 20 & 0xF, 9U);
  EXPECT_EQ(function_.ReadConfig(express + 0x0C), 0U);
}

TEST_F(EndpointTest, ResetBringsBackTheAddressesOfPowerOn) {
  function_.SetBarAtReset(0, 0x40'0000'8000);
  EXPECT_EQ(function_.ReadConfig(kBar1), 0x40U);
  Write(kBar0, 0xD000'0000);
  Write(kBar1, 0);
  SetCommand(kCommandMemory);
  function_.Reset();
  EXPECT_EQ(ReadByte(0xD000'0000), 0xFF);
  EXPECT_EQ(function_.ReadConfig(kBar0), 0x0000'800CU);
  EXPECT_EQ(function_.ReadConfig(kBar1), 0x40U);
  EXPECT_EQ(function_.ReadConfig(kCommandRegister) & 0xFFFF, 0U);
  EXPECT_THAT(vm_.doorbells(), IsEmpty());
  EXPECT_EQ(bus_resets_, 0);
}

TEST_F(EndpointTest, ABusResetForgetsAddressesTooAndTellsTheDevice) {
  function_.SetBarAtReset(0, 0x40'0000'8000);
  SetCommand(kCommandMemory);
  EXPECT_EQ(ReadByte(0x40'0000'8000), 0x01);
  function_.BusReset();
  EXPECT_EQ(ReadByte(0x40'0000'8000), 0xFF);
  EXPECT_EQ(function_.ReadConfig(kBar1), 0U);
  EXPECT_EQ(bus_resets_, 1);
}

TEST_F(EndpointTest, BarsMoveWhileOtherVcpusUseThem) {
  Write(kBar0, 0xD000'0000);
  SetCommand(kCommandMemory);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread vcpu([&] {
    while (!stop) {
      const uint8_t value = ReadByte(0xD000'0020);
      if (value != 0x21 && value != 0xFF) ++wrong;
      WriteWord(0xD100'3000, 0);
    }
  });
  for (int i = 0; i < 500; ++i) {
    Write(kBar0, 0xD100'0000);
    SetCommand(0);
    Write(kBar0, 0xD000'0000);
    SetCommand(kCommandMemory);
  }
  stop = true;
  vcpu.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(vm_.doorbells().size(), 1U);
}

}  // namespace
}  // namespace bothy::pci
