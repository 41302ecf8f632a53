#include "chipset/serial/uart16550.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

// Registers.
constexpr uint64_t kData = 0;
constexpr uint64_t kIer = 1;
constexpr uint64_t kIir = 2;
constexpr uint64_t kFcr = 2;
constexpr uint64_t kLcr = 3;
constexpr uint64_t kMcr = 4;
constexpr uint64_t kLsr = 5;
constexpr uint64_t kMsr = 6;
constexpr uint64_t kScr = 7;

class FakeBackend : public SerialBackend {
 public:
  void Transmit(std::span<const uint8_t> bytes) override {
    output.append(bytes.begin(), bytes.end());
  }
  void OnReceiveRoom() override { ++rooms; }
  void Attach(SerialInput* attached) override { input = attached; }

  // As many as the port takes.
  size_t Send(const std::string& text) {
    return input->Receive({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }

  std::string output;
  int rooms = 0;
  SerialInput* input = nullptr;
};

class Uart16550Test : public ::testing::Test {
 protected:
  Uart16550Test() { uart_.Start(); }
  uint8_t In(uint64_t offset) { return ReadIo<uint8_t>(uart_, offset); }
  void Out(uint64_t offset, int value) {
    WriteIo<uint8_t>(uart_, offset, static_cast<uint8_t>(value));
  }
  std::string Drain() {
    std::string text;
    while (In(kLsr) & 1) text += static_cast<char>(In(kData));
    return text;
  }

  FakeBackend backend_;
  FakeIrq irq_;
  Uart16550 uart_{{.name = "com1"}, irq_.NewLine(), backend_};
};

TEST_F(Uart16550Test, StartsAsAfterPowerOn) {
  EXPECT_EQ(In(kIer), 0);
  EXPECT_EQ(In(kIir), 0x01);
  EXPECT_EQ(In(kLcr), 0);
  EXPECT_EQ(In(kMcr), 0);
  EXPECT_EQ(In(kLsr), 0x60);
  EXPECT_EQ(In(kMsr), 0xB0);
  EXPECT_FALSE(irq_.asserted());
}

TEST_F(Uart16550Test, WhatIsWrittenIsSentAtOnce) {
  for (const char c : std::string("hello")) {
    EXPECT_EQ(In(kLsr) & 0x60, 0x60);
    Out(kData, c);
  }
  EXPECT_EQ(backend_.output, "hello");
  EXPECT_EQ(uart_.Counters().bytes_from_guest, 5u);
}

TEST_F(Uart16550Test, LinuxFindsA16550A) {
  // The scratch, loopback and FIFO tests of its driver.
  Out(kScr, 0xA5);
  EXPECT_EQ(In(kScr), 0xA5);
  Out(kIer, 0);
  EXPECT_EQ(In(kIer), 0);
  Out(kIer, 0x0F);
  EXPECT_EQ(In(kIer), 0x0F);
  Out(kIer, 0);
  Out(kMcr, 0x1A);
  EXPECT_EQ(In(kMsr) & 0xF0, 0x90);
  Out(kMcr, 0);
  Out(kFcr, 0x01);
  EXPECT_EQ(In(kIir) >> 6, 3);
  // Not a 16750 with its 64 bytes.
  Out(kFcr, 0x21);
  EXPECT_EQ(In(kIir) & 0x20, 0);
  Out(kFcr, 0x00);
  EXPECT_EQ(In(kIir) >> 6, 0);
}

TEST_F(Uart16550Test, DivisorLatchHidesDataAndInterruptEnable) {
  Out(kIer, 0x05);
  Out(kLcr, 0x83);
  Out(0, 0x34);
  Out(1, 0x12);
  EXPECT_EQ(In(0), 0x34);
  EXPECT_EQ(In(1), 0x12);
  EXPECT_EQ(uart_.State().divisor, 0x1234);
  Out(kLcr, 0x03);
  EXPECT_EQ(In(kIer), 0x05);
  EXPECT_EQ(backend_.output, "");
}

TEST_F(Uart16550Test, WideAccessesAreConsecutiveBytes) {
  WriteIo<uint16_t>(uart_, kData, 0x0A41);
  EXPECT_EQ(backend_.output, "A");
  EXPECT_EQ(In(kIer), 0x0A);
  WriteIo<uint64_t>(uart_, 0, 0x77FFFF0003000142);
  EXPECT_EQ(backend_.output, "AB");
  EXPECT_EQ(ReadIo<uint32_t>(uart_, 4), 0x77B06000u);
  EXPECT_EQ(ReadIo<uint64_t>(uart_, 0) >> 56, 0x77u);
}

TEST_F(Uart16550Test, ReceivesThroughTheFifo) {
  Out(kFcr, 0x01);
  EXPECT_EQ(backend_.Send("0123456789abcdefXYZ"), 16u);
  EXPECT_EQ(Drain(), "0123456789abcdef");
  EXPECT_EQ(In(kData), 0);
  EXPECT_EQ(uart_.Counters().bytes_to_guest, 16u);
}

TEST_F(Uart16550Test, WithoutAFifoThereIsRoomForOneByte) {
  EXPECT_EQ(backend_.Send("xy"), 1u);
  EXPECT_EQ(backend_.Send("y"), 0u);
  EXPECT_EQ(Drain(), "x");
  EXPECT_EQ(backend_.Send("y"), 1u);
  EXPECT_EQ(Drain(), "y");
  // Nothing was overrun.
  EXPECT_EQ(In(kLsr) & 0x02, 0);
}

TEST_F(Uart16550Test, AsksForMoreOnceTheGuestHasRead) {
  Out(kFcr, 0x01);
  EXPECT_EQ(backend_.Send("0123456789"), 10u);
  Drain();
  // All was taken, so nobody waits.
  EXPECT_EQ(backend_.rooms, 0);
  EXPECT_EQ(backend_.Send("0123456789abcdefXYZ"), 16u);
  In(kData);
  EXPECT_EQ(backend_.rooms, 0);
  Drain();
  EXPECT_EQ(backend_.rooms, 1);
  Drain();
  EXPECT_EQ(backend_.rooms, 1);
}

TEST_F(Uart16550Test, ClearingTheFifoMakesRoom) {
  Out(kFcr, 0x01);
  backend_.Send("0123456789abcdefXYZ");
  Out(kFcr, 0x03);
  EXPECT_EQ(In(kLsr) & 1, 0);
  EXPECT_EQ(backend_.rooms, 1);
  backend_.Send("0123456789abcdefXYZ");
  // So does turning it off.
  Out(kFcr, 0x00);
  EXPECT_EQ(In(kLsr) & 1, 0);
  EXPECT_EQ(backend_.rooms, 2);
}

TEST_F(Uart16550Test, InputWaitsWhileStopped) {
  Out(kFcr, 0x01);
  uart_.Stop();
  EXPECT_EQ(backend_.Send("abc"), 0u);
  EXPECT_EQ(In(kLsr) & 1, 0);
  EXPECT_EQ(backend_.rooms, 0);
  uart_.Start();
  EXPECT_EQ(backend_.rooms, 1);
  EXPECT_EQ(backend_.Send("abc"), 3u);
  EXPECT_EQ(Drain(), "abc");
}

TEST_F(Uart16550Test, ReceiveInterruptFollowsTheTriggerLevel) {
  const std::array<std::pair<int, size_t>, 4> levels = {
      {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xC1, 14}}};
  Out(kIer, 0x01);
  for (const auto& [fcr, level] : levels) {
    Out(kFcr, fcr | 0x02);
    EXPECT_FALSE(irq_.asserted());
    if (level > 1) {
      backend_.Send(std::string(level - 1, 'x'));
      // Below the level, and nothing more comes: time-out.
      EXPECT_TRUE(irq_.asserted());
      EXPECT_EQ(In(kIir), 0xCC);
    }
    backend_.Send("x");
    EXPECT_TRUE(irq_.asserted());
    EXPECT_EQ(In(kIir), 0xC4);
    Drain();
    EXPECT_FALSE(irq_.asserted());
    EXPECT_EQ(In(kIir), 0xC1);
  }
}

TEST_F(Uart16550Test, TransmitInterruptOncePerEmptying) {
  Out(kIer, 0x02);
  EXPECT_TRUE(irq_.asserted());
  EXPECT_EQ(In(kIir), 0x02);
  // Telling clears it.
  EXPECT_FALSE(irq_.asserted());
  EXPECT_EQ(In(kIir), 0x01);
  Out(kData, 'a');
  EXPECT_TRUE(irq_.asserted());
  EXPECT_EQ(irq_.edges(), 2);
  EXPECT_EQ(In(kIir), 0x02);
  // Off and on again raises it again: Linux tests for that.
  Out(kIer, 0x00);
  EXPECT_FALSE(irq_.asserted());
  Out(kIer, 0x02);
  EXPECT_TRUE(irq_.asserted());
}

TEST_F(Uart16550Test, InterruptsHaveTheirPriorities) {
  Out(kMcr, 0x10);  // loopback, where all of them can be had
  Out(kIer, 0x0F);
  In(kMsr);
  In(kIir);
  Out(kData, 'a');
  Out(kData, 'b');  // overrun: the FIFO is off
  Out(kMcr, 0x12);  // CTS changes
  EXPECT_EQ(In(kIir), 0x06);
  EXPECT_EQ(In(kLsr), 0x63);
  EXPECT_EQ(In(kIir), 0x04);
  EXPECT_EQ(In(kData), 'a');
  EXPECT_EQ(In(kIir), 0x02);
  EXPECT_EQ(In(kIir), 0x00);
  EXPECT_EQ(In(kMsr), 0x11);
  EXPECT_EQ(In(kIir), 0x01);
  EXPECT_FALSE(irq_.asserted());
}

TEST_F(Uart16550Test, LoopbackKeepsOutputFromTheBackendAndInputFromTheGuest) {
  Out(kFcr, 0x01);
  Out(kMcr, 0x10);
  Out(kData, 'q');
  EXPECT_EQ(backend_.Send("in"), 0u);
  EXPECT_EQ(Drain(), "q");
  EXPECT_EQ(backend_.output, "");
  EXPECT_EQ(backend_.rooms, 0);
  Out(kMcr, 0x00);
  EXPECT_EQ(backend_.rooms, 1);
  EXPECT_EQ(backend_.Send("in"), 2u);
  EXPECT_EQ(Drain(), "in");
}

TEST_F(Uart16550Test, LoopbackOverrunsAsHardwareDoes) {
  Out(kFcr, 0x01);
  Out(kMcr, 0x10);
  for (int i = 0; i < 17; ++i) Out(kData, 'a' + i);
  EXPECT_EQ(In(kLsr), 0x63);
  EXPECT_EQ(In(kLsr), 0x61);
  EXPECT_EQ(Drain(), "abcdefghijklmnop");
}

TEST_F(Uart16550Test, LoopbackHearsABreak) {
  Out(kMcr, 0x10);
  Out(kLcr, 0x43);
  EXPECT_EQ(In(kLsr), 0x71);
  EXPECT_EQ(In(kData), 0);
  EXPECT_EQ(In(kLsr), 0x60);
}

TEST_F(Uart16550Test, LoopbackCrossesTheModemLines) {
  // From a cable with CTS, DSR and DCD to none: three deltas.
  Out(kMcr, 0x10);
  EXPECT_EQ(In(kMsr), 0x0B);
  EXPECT_EQ(In(kMsr), 0x00);
  Out(kMcr, 0x11);
  EXPECT_EQ(In(kMsr), 0x22);
  Out(kMcr, 0x12);
  EXPECT_EQ(In(kMsr), 0x13);
  // RI's delta tells of its end only.
  Out(kMcr, 0x14);
  EXPECT_EQ(In(kMsr), 0x41);
  Out(kMcr, 0x18);
  EXPECT_EQ(In(kMsr), 0x8C);
}

TEST_F(Uart16550Test, ResetGoesBackToPowerOnAndLowersTheInterrupt) {
  Out(kFcr, 0x01);
  Out(kIer, 0x01);
  Out(kScr, 0x42);
  backend_.Send("0123456789abcdefXYZ");
  ASSERT_TRUE(irq_.asserted());
  uart_.Stop();
  uart_.Reset();
  EXPECT_FALSE(irq_.asserted());
  EXPECT_EQ(In(kLsr), 0x60);
  EXPECT_EQ(In(kScr), 0);
  EXPECT_EQ(In(kIir), 0x01);
  // The backend may go on once the next guest runs.
  EXPECT_EQ(backend_.rooms, 0);
  uart_.Start();
  EXPECT_EQ(backend_.rooms, 1);
}

TEST_F(Uart16550Test, AttachesToItsBackendWhileItLives) {
  FakeBackend backend;
  FakeIrq irq;
  {
    Uart16550 uart({.name = "com2"}, irq.NewLine(), backend);
    EXPECT_EQ(backend.input, &uart);
    uart.Start();
    WriteIo<uint8_t>(uart, kIer, 0x02);
    EXPECT_TRUE(irq.asserted());
  }
  EXPECT_EQ(backend.input, nullptr);
  EXPECT_FALSE(irq.asserted());
}

TEST(Uart16550ThreadsTest, VcpusAndInputMayComeAtOnce) {
  FakeBackend backend;
  FakeIrq irq;
  Uart16550 uart({.name = "com1"}, irq.NewLine(), backend);
  uart.Start();
  WriteIo<uint8_t>(uart, kFcr, 0x01);
  constexpr int kBytes = 3'000;
  std::vector<std::thread> writers;
  for (const char c : {'a', 'b'}) {
    writers.emplace_back([&uart, c] {
      for (int i = 0; i < kBytes; ++i) {
        ReadIo<uint8_t>(uart, kLsr);
        WriteIo<uint8_t>(uart, kData, static_cast<uint8_t>(c));
      }
    });
  }
  std::thread sender([&backend] {
    for (int sent = 0; sent < kBytes;) {
      const uint8_t byte = static_cast<uint8_t>(sent % 251);
      const size_t taken = backend.input->Receive({&byte, 1});
      sent += static_cast<int>(taken);
      // The lock isn't fair; let the reader have it.
      if (taken == 0) std::this_thread::yield();
    }
  });
  for (int received = 0; received < kBytes;) {
    if ((ReadIo<uint8_t>(uart, kLsr) & 1) == 0) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(ReadIo<uint8_t>(uart, kData), received % 251);
    ++received;
  }
  sender.join();
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(std::count(backend.output.begin(), backend.output.end(), 'a'), kBytes);
  EXPECT_EQ(std::count(backend.output.begin(), backend.output.end(), 'b'), kBytes);
}

}  // namespace
}  // namespace bothy::chipset
