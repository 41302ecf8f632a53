#include "chipset/serial/uart16550.h"

#include <algorithm>
#include <utility>

namespace bothy::chipset {
namespace {

// Register offsets; 0 and 1 are the divisor latch while LCR's bit 7 is set (8.0, table II).
enum Register : uint64_t {
  kData = 0,
  kInterruptEnable = 1,
  kInterruptIdOrFifoControl = 2,
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

// IER (8.7).
constexpr uint8_t kIerReceived = 0x01;
constexpr uint8_t kIerTransmitEmpty = 0x02;
constexpr uint8_t kIerLineStatus = 0x04;
constexpr uint8_t kIerModemStatus = 0x08;
constexpr uint8_t kIerMask = 0x0F;

// IIR (8.6), highest priority first.
constexpr uint8_t kIirLineStatus = 0x06;
constexpr uint8_t kIirReceived = 0x04;
constexpr uint8_t kIirTimeout = 0x0C;
constexpr uint8_t kIirTransmitEmpty = 0x02;
constexpr uint8_t kIirModemStatus = 0x00;
constexpr uint8_t kIirNone = 0x01;
constexpr uint8_t kIirFifoEnabled = 0xC0;

// FCR (8.5).
constexpr uint8_t kFcrEnable = 0x01;
constexpr uint8_t kFcrClearReceiver = 0x02;
constexpr uint8_t kFcrTriggerShift = 6;
constexpr uint8_t kFcrTriggerMask = 0xC0;
constexpr std::array<uint8_t, 4> kTriggerLevels = {1, 4, 8, 14};

// LCR (8.1).
constexpr uint8_t kLcrBreak = 0x40;
constexpr uint8_t kLcrDivisorLatch = 0x80;

// MCR (8.8).
constexpr uint8_t kMcrDtr = 0x01;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut1 = 0x04;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoopback = 0x10;
constexpr uint8_t kMcrMask = 0x1F;

// LSR (8.4).
constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrOverrun = 0x02;
constexpr uint8_t kLsrBreak = 0x10;
constexpr uint8_t kLsrTransmitterEmpty = 0x60;  // THRE and TEMT

// MSR (8.9): the lines; each has its delta four bits lower.
constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRi = 0x40;
constexpr uint8_t kMsrDcd = 0x80;
constexpr uint8_t kMsrLines = 0xF0;
// A cable with a peer that is always ready, whether or not somebody is connected to the socket: a
// guest that hung up when a client left would be a surprise.
constexpr uint8_t kCableLines = kMsrCts | kMsrDsr | kMsrDcd;

}  // namespace

Uart16550::Uart16550(Uart16550Options options, std::unique_ptr<hypervisor::IrqLine> irq,
                     SerialBackend& backend)
    : name_(std::move(options.name)), irq_(std::move(irq)), backend_(backend) {
  backend_.Attach(this);
}

Uart16550::~Uart16550() {
  backend_.Attach(nullptr);
  irq_->Set(false);
}

void Uart16550::Read(uint64_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (uint8_t& byte : data) byte = ReadRegister(offset++);
}

void Uart16550::Write(uint64_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (const uint8_t byte : data) WriteRegister(offset++, byte);
}

uint8_t Uart16550::ReadRegister(uint64_t offset) {
  switch (offset) {
    case kData:
      if (state_.line_control & kLcrDivisorLatch) return state_.divisor & 0xFF;
      return ReadData();
    case kInterruptEnable:
      if (state_.line_control & kLcrDivisorLatch) return state_.divisor >> 8;
      return state_.interrupt_enable;
    case kInterruptIdOrFifoControl: {
      const uint8_t id = InterruptIdentification();
      if (id == kIirTransmitEmpty) {
        state_.transmit_empty_pending = false;
        UpdateIrq();
      }
      return id | (FifoEnabled() ? kIirFifoEnabled : 0);
    }
    case kLineControl:
      return state_.line_control;
    case kModemControl:
      return state_.modem_control;
    case kLineStatus: {
      const uint8_t status = LineStatus();
      if (state_.line_errors != 0) {
        state_.line_errors = 0;
        UpdateIrq();
      }
      return status;
    }
    case kModemStatus: {
      const uint8_t status = ModemLines() | state_.modem_deltas;
      if (state_.modem_deltas != 0) {
        state_.modem_deltas = 0;
        UpdateIrq();
      }
      return status;
    }
    case kScratch:
      return state_.scratch;
    default:
      return 0xFF;
  }
}

void Uart16550::WriteRegister(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      if (state_.line_control & kLcrDivisorLatch) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0xFF00) | value);
      } else {
        WriteData(value);
      }
      break;
    case kInterruptEnable:
      if (state_.line_control & kLcrDivisorLatch) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0x00FF) | value << 8);
      } else {
        const uint8_t old = std::exchange(state_.interrupt_enable, value & kIerMask);
        // Enabling the interrupt while the transmitter is empty, as it always is, raises it.
        if (~old & value & kIerTransmitEmpty) state_.transmit_empty_pending = true;
        UpdateIrq();
      }
      break;
    case kInterruptIdOrFifoControl:
      WriteFifoControl(value);
      break;
    case kLineControl: {
      const uint8_t old = std::exchange(state_.line_control, value);
      // A break that the receiver hears: a zero byte and the break flag (8.4, bit 4).
      if (Loopback() && (~old & value & kLcrBreak)) {
        LoopBack(0);
        state_.line_errors |= kLsrBreak;
        UpdateIrq();
      }
      break;
    }
    case kModemControl:
      WriteModemControl(value);
      break;
    case kScratch:
      state_.scratch = value;
      break;
    default:
      // LSR and MSR: writing them is for factory tests.
      break;
  }
}

uint8_t Uart16550::ReadData() {
  if (state_.fifo_count == 0) return 0;
  const uint8_t value = state_.fifo[state_.fifo_head];
  state_.fifo_head = (state_.fifo_head + 1) % Uart16550State::kFifoSize;
  --state_.fifo_count;
  ++counters_.bytes_to_guest;
  UpdateIrq();
  // Once it is empty rather than at each byte: the backend's wake-up costs more than a byte.
  if (state_.fifo_count == 0) OfferRoom();
  return value;
}

void Uart16550::WriteData(uint8_t value) {
  if (Loopback()) {
    LoopBack(value);
  } else {
    ++counters_.bytes_from_guest;
    backend_.Transmit({&value, 1});
  }
  // Written and empty again at once.
  state_.transmit_empty_pending = true;
  UpdateIrq();
}

void Uart16550::WriteFifoControl(uint8_t value) {
  const bool was_enabled = FifoEnabled();
  const bool enable = (value & kFcrEnable) != 0;
  // Other bits aren't programmed unless bit 0 is set (8.5), and changing it empties the FIFOs.
  state_.fifo_control = enable ? value & (kFcrEnable | kFcrTriggerMask) : 0;
  if (enable != was_enabled || (enable && (value & kFcrClearReceiver))) ClearReceived();
  UpdateIrq();
}

void Uart16550::WriteModemControl(uint8_t value) {
  const uint8_t old_lines = ModemLines();
  const bool was_loopback = Loopback();
  state_.modem_control = value & kMcrMask;
  const uint8_t lines = ModemLines();
  uint8_t deltas = ((old_lines ^ lines) & kMsrLines) >> 4;
  // The ring indicator's delta tells only of its end (8.9, bit 2).
  if ((deltas & (kMsrRi >> 4)) && (lines & kMsrRi)) deltas &= ~(kMsrRi >> 4);
  state_.modem_deltas |= deltas;
  UpdateIrq();
  if (was_loopback && !Loopback() && state_.fifo_count < Capacity()) OfferRoom();
}

bool Uart16550::FifoEnabled() const { return (state_.fifo_control & kFcrEnable) != 0; }

bool Uart16550::Loopback() const { return (state_.modem_control & kMcrLoopback) != 0; }

size_t Uart16550::Capacity() const { return FifoEnabled() ? Uart16550State::kFifoSize : 1; }

uint8_t Uart16550::ModemLines() const {
  if (!Loopback()) return kCableLines;
  // 8.8, bit 4: the outputs come back at the inputs.
  uint8_t lines = 0;
  if (state_.modem_control & kMcrRts) lines |= kMsrCts;
  if (state_.modem_control & kMcrDtr) lines |= kMsrDsr;
  if (state_.modem_control & kMcrOut1) lines |= kMsrRi;
  if (state_.modem_control & kMcrOut2) lines |= kMsrDcd;
  return lines;
}

uint8_t Uart16550::LineStatus() const {
  return kLsrTransmitterEmpty | state_.line_errors | (state_.fifo_count != 0 ? kLsrDataReady : 0);
}

uint8_t Uart16550::InterruptIdentification() const {
  const uint8_t enable = state_.interrupt_enable;
  if ((enable & kIerLineStatus) && state_.line_errors != 0) return kIirLineStatus;
  if ((enable & kIerReceived) && state_.fifo_count != 0) {
    const uint8_t trigger = kTriggerLevels[state_.fifo_control >> kFcrTriggerShift];
    // Input arrives in bursts as long as they fit, so what is there when no more comes has waited
    // its four character times (8.11): below the trigger level that is the time-out interrupt.
    return !FifoEnabled() || state_.fifo_count >= trigger ? kIirReceived : kIirTimeout;
  }
  if ((enable & kIerTransmitEmpty) && state_.transmit_empty_pending) return kIirTransmitEmpty;
  if ((enable & kIerModemStatus) && state_.modem_deltas != 0) return kIirModemStatus;
  return kIirNone;
}

void Uart16550::PushReceived(uint8_t value) {
  const size_t place = (state_.fifo_head + state_.fifo_count) % Uart16550State::kFifoSize;
  state_.fifo[place] = value;
  ++state_.fifo_count;
}

void Uart16550::ClearReceived() {
  state_.fifo_head = 0;
  state_.fifo_count = 0;
  OfferRoom();
}

void Uart16550::LoopBack(uint8_t value) {
  if (state_.fifo_count < Capacity()) {
    PushReceived(value);
  } else {
    state_.line_errors |= kLsrOverrun;
  }
}

void Uart16550::UpdateIrq() {
  const bool asserted = InterruptIdentification() != kIirNone;
  if (asserted == irq_asserted_) return;
  irq_asserted_ = asserted;
  irq_->Set(asserted);
}

void Uart16550::OfferRoom() {
  if (!backend_waits_ || !running_ || Loopback()) return;
  backend_waits_ = false;
  backend_.OnReceiveRoom();
}

size_t Uart16550::Receive(std::span<const uint8_t> bytes) {
  std::lock_guard lock(mutex_);
  size_t accepted = 0;
  if (running_ && !Loopback()) {
    accepted = std::min(bytes.size(), Capacity() - std::min<size_t>(Capacity(), state_.fifo_count));
    for (const uint8_t byte : bytes.first(accepted)) PushReceived(byte);
    UpdateIrq();
  }
  if (accepted < bytes.size()) backend_waits_ = true;
  return accepted;
}

void Uart16550::Start() {
  std::lock_guard lock(mutex_);
  running_ = true;
  if (state_.fifo_count < Capacity()) OfferRoom();
}

void Uart16550::Stop() {
  std::lock_guard lock(mutex_);
  running_ = false;
}

void Uart16550::Reset() {
  std::lock_guard lock(mutex_);
  state_ = {};
  UpdateIrq();
}

Uart16550State Uart16550::State() const {
  std::lock_guard lock(mutex_);
  return state_;
}

Uart16550Counters Uart16550::Counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

void Uart16550::Inspect(inspect::Node& node) const {
  const Uart16550State state = State();
  const Uart16550Counters counters = Counters();
  node.Value("bytes_from_guest", counters.bytes_from_guest);
  node.Value("bytes_to_guest", counters.bytes_to_guest);
  node.Value("receive_fifo_bytes", state.fifo_count);
  node.Value("divisor", state.divisor);
  node.Address("interrupt_enable", state.interrupt_enable);
  node.Address("line_control", state.line_control);
  node.Address("modem_control", state.modem_control);
}

}  // namespace bothy::chipset
