#include "hypervisor/kvm/fault_counts.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <vector>

namespace bothy::hypervisor::kvm {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"pf_taken", "pf_fixed", "pf_emulate",
                                                    "pf_spurious"};

// A descriptor without its name, which is a flexible array: in C++ that has a size of its own.
constexpr size_t kDescriptorBytes =
    offsetof(kvm_stats_desc, bucket_size) + sizeof(kvm_stats_desc::bucket_size);

absl::Status ReadAll(int fd, void* to, size_t bytes, uint64_t offset) {
  const ssize_t count = ::pread(fd, to, bytes, static_cast<off_t>(offset));
  if (count == static_cast<ssize_t>(bytes)) return absl::OkStatus();
  return ErrnoStatus(count < 0 ? errno : EIO, "reading a vCPU's statistics");
}

}  // namespace

absl::StatusOr<FaultCounts> FaultCounts::Open(int vcpu_fd) {
  UniqueFd fd(::ioctl(vcpu_fd, KVM_GET_STATS_FD, 0));
  if (!fd) return absl::UnimplementedError("KVM has no binary statistics (needs Linux 5.19)");
  kvm_stats_header header{};
  RETURN_IF_ERROR(ReadAll(fd.get(), &header, sizeof header, 0));
  const size_t stride = kDescriptorBytes + header.name_size;
  std::vector<char> descriptors(stride * header.num_desc);
  RETURN_IF_ERROR(ReadAll(fd.get(), descriptors.data(), descriptors.size(), header.desc_offset));
  std::array<uint64_t, kCounters> offsets{};
  size_t found = 0;
  for (uint32_t i = 0; i < header.num_desc; ++i) {
    const char* const at = descriptors.data() + i * stride;
    uint32_t offset = 0;
    std::memcpy(&offset, at + offsetof(kvm_stats_desc, offset), sizeof offset);
    std::string_view name(at + kDescriptorBytes, header.name_size);
    name = name.substr(0, name.find('\0'));
    const auto* const known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) continue;
    offsets[static_cast<size_t>(known - kNames.begin())] = header.data_offset + offset;
    ++found;
  }
  if (found != kCounters) {
    return absl::UnimplementedError("KVM doesn't count a vCPU's faults (needs Linux 5.19)");
  }
  return FaultCounts(std::move(fd), offsets);
}

absl::StatusOr<uint64_t> FaultCounts::Unresolved() const {
  std::array<uint64_t, kCounters> counts{};
  for (size_t i = 0; i < kCounters; ++i) {
    RETURN_IF_ERROR(ReadAll(fd_.get(), &counts[i], sizeof counts[i], offsets_[i]));
  }
  const auto [taken, fixed, emulated, spurious] = counts;
  return taken - fixed - emulated - spurious;
}

}  // namespace bothy::hypervisor::kvm
