#include "pci/root_complex.h"

#include <algorithm>

#include "support/endian.h"

namespace bothy::pci {
namespace {

constexpr uint64_t kWordBytes = sizeof(uint32_t);
constexpr uint32_t kAddressEnable = 1U << 31;
// Reserved bits read as zero; so do the two that CONFIG_DATA's own address stands for.
constexpr uint32_t kAddressBits = 0x80FF'FFFC;
constexpr uint64_t kDataPort = 4;  // of CONFIG_DATA within the range

DeviceFunction WhereOnBus(uint64_t ecam_offset) {
  return {.device = static_cast<uint8_t>(ecam_offset >> 15 & 0x1F),
          .function = static_cast<uint8_t>(ecam_offset >> 12 & 0x7)};
}

uint16_t OffsetInFunction(uint64_t ecam_offset) {
  return static_cast<uint16_t>(ecam_offset & (kConfigSpaceBytes - 1));
}

// Where in ECAM the register is that CONFIG_ADDRESS selects.
uint64_t ToEcamOffset(uint32_t address) {
  return uint64_t{address >> 8 & 0xFFFF} << 12 | (address & 0xFC);
}

// The access [offset, offset + size) as pieces within double words: `piece(word offset, first byte
// of it, bytes, bytes before this piece)`.
template <typename Piece>
void ForEachWord(uint64_t offset, size_t size, const Piece& piece) {
  for (size_t done = 0; done < size;) {
    const size_t first = (offset + done) % kWordBytes;
    const size_t n = std::min<size_t>(size - done, kWordBytes - first);
    piece(offset + done - first, first, n, done);
    done += n;
  }
}

}  // namespace

void RootComplex::Reset() {
  config_ports_.Reset();
  root_bus_.Reset();
}

absl::Status RootComplex::AttachPort(DeviceFunction where, RootPort& port) {
  RETURN_IF_ERROR(root_bus_.Attach(where, port));
  ports_.push_back(&port);
  return absl::OkStatus();
}

const Bus* RootComplex::Route(uint64_t bus) const {
  if (bus == 0) return &root_bus_;
  for (const RootPort* port : ports_) {
    if (const Bus* behind = port->BusNumbered(bus); behind != nullptr) return behind;
  }
  return nullptr;
}

uint32_t RootComplex::ReadWord(uint64_t ecam_offset) const {
  const Bus* bus = Route(ecam_offset >> 20);
  if (bus == nullptr) return kAllOnes;
  return bus->ReadConfig(WhereOnBus(ecam_offset), OffsetInFunction(ecam_offset));
}

void RootComplex::WriteWord(uint64_t ecam_offset, uint32_t value, uint32_t enabled) const {
  const Bus* bus = Route(ecam_offset >> 20);
  if (bus == nullptr) return;
  bus->WriteConfig(WhereOnBus(ecam_offset), OffsetInFunction(ecam_offset), value, enabled);
}

void RootComplex::ReadBytes(uint64_t ecam_offset, std::span<uint8_t> data) const {
  ForEachWord(ecam_offset, data.size(), [&](uint64_t word, size_t first, size_t n, size_t done) {
    std::array<uint8_t, kWordBytes> bytes;
    StoreLe(bytes.data(), ReadWord(word));
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(first), n,
                data.begin() + static_cast<ptrdiff_t>(done));
  });
}

void RootComplex::WriteBytes(uint64_t ecam_offset, std::span<const uint8_t> data) const {
  ForEachWord(ecam_offset, data.size(), [&](uint64_t word, size_t first, size_t n, size_t done) {
    std::array<uint8_t, kWordBytes> value{};
    std::array<uint8_t, kWordBytes> enabled{};
    std::copy_n(data.begin() + static_cast<ptrdiff_t>(done), n,
                value.begin() + static_cast<ptrdiff_t>(first));
    std::fill_n(enabled.begin() + static_cast<ptrdiff_t>(first), n, uint8_t{0xFF});
    WriteWord(word, LoadLe<uint32_t>(value.data()), LoadLe<uint32_t>(enabled.data()));
  });
}

void RootComplex::ConfigPorts::Read(uint64_t offset, std::span<uint8_t> data) {
  const uint32_t address = address_.load(std::memory_order_relaxed);
  if (offset >= kDataPort && data.size() <= kConfigPortsSize - offset) {
    if ((address & kAddressEnable) != 0) {
      complex_.ReadBytes(ToEcamOffset(address) + (offset - kDataPort), data);
      return;
    }
  } else if (offset == 0 && data.size() == kWordBytes) {
    StoreLe(data.data(), address);
    return;
  }
  std::fill(data.begin(), data.end(), uint8_t{0xFF});
}

void RootComplex::ConfigPorts::Write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset >= kDataPort && data.size() <= kConfigPortsSize - offset) {
    const uint32_t address = address_.load(std::memory_order_relaxed);
    if ((address & kAddressEnable) == 0) return;
    complex_.WriteBytes(ToEcamOffset(address) + (offset - kDataPort), data);
  } else if (offset == 0 && data.size() == kWordBytes) {
    // Narrower writes go to whatever else is at that port.
    address_.store(LoadLe<uint32_t>(data.data()) & kAddressBits, std::memory_order_relaxed);
  }
}

void RootComplex::Ecam::Read(uint64_t offset, std::span<uint8_t> data) {
  complex_.ReadBytes(offset, data);
}

void RootComplex::Ecam::Write(uint64_t offset, std::span<const uint8_t> data) {
  complex_.WriteBytes(offset, data);
}

}  // namespace bothy::pci
