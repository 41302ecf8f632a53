// KVM's structs that end in a flexible array, as C++ can lay them out.
//
// <linux/kvm.h> declares those arrays behind an empty struct, which has no size in C and one byte
// in C++: in C++ the entries, sizeof, and with it the ioctl numbers are wrong. The layout here is
// the kernel's: an 8-byte header, entries right behind it.
#pragma once

#include <linux/kvm.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace bothy::hypervisor::kvm {

struct CountHeader {
  uint32_t count = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(CountHeader) == 8);
static_assert(sizeof(kvm_cpuid_entry2) == 40);
static_assert(sizeof(kvm_msr_entry) == 16);
static_assert(sizeof(kvm_irq_routing_entry) == 48);

inline constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CountHeader);
inline constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CountHeader);
inline constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, CountHeader);
inline constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, CountHeader);
inline constexpr unsigned long kSetGsiRouting = _IOW(KVMIO, 0x6a, CountHeader);

// A header and its entries in one block of memory, as the ioctls take it.
template <typename Entry>
class CountedArray {
 public:
  explicit CountedArray(size_t count) : bytes_(sizeof(CountHeader) + count * sizeof(Entry)) {
    const CountHeader header{.count = static_cast<uint32_t>(count)};
    std::memcpy(bytes_.data(), &header, sizeof header);
  }
  explicit CountedArray(std::span<const Entry> entries) : CountedArray(entries.size()) {
    std::memcpy(bytes_.data() + sizeof(CountHeader), entries.data(), entries.size_bytes());
  }
  // The ioctl's argument.
  [[nodiscard]] void* data() { return bytes_.data(); }
  // A copy of the entries that the kernel says it filled.
  [[nodiscard]] std::vector<Entry> Entries() const {
    CountHeader header;
    std::memcpy(&header, bytes_.data(), sizeof header);
    std::vector<Entry> entries(
        std::min<size_t>(header.count, (bytes_.size() - sizeof header) / sizeof(Entry)));
    std::memcpy(entries.data(), bytes_.data() + sizeof header, entries.size() * sizeof(Entry));
    return entries;
  }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace bothy::hypervisor::kvm
