#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "memory/available_memory.h"
#include "support/check.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace bothy::memory {
namespace {

constexpr uint64_t kHugePageSize = 2 * kMiB;

// What a VM costs besides its RAM, generously: page tables, KVM's own and the host's, and what the
// server takes while it loads a kernel.
constexpr uint64_t kPageTablesShare = 256;
constexpr uint64_t kServerBytes = 32 * kMiB;

constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// Makes [data, data + size), whole huge pages of a shared mapping, huge whatever the host's
// shmem_enabled says. madvise wants one page of each to be there. False when the host can't.
bool Collapse(uint8_t* data, uint64_t size) {
  for (uint64_t at = 0; at < size; at += kHugePageSize) {
    if (::madvise(data + at, kPageSize, MADV_POPULATE_WRITE) != 0) return false;
  }
  return ::madvise(data, size, MADV_COLLAPSE) == 0;
}

// Populates [data, data + size) with one thread a core: page faults of one mapping scale with
// cores. Cancelled when a stop was requested before all was done.
absl::Status Populate(uint8_t* data, uint64_t size, const std::stop_token& stop) {
  constexpr uint64_t kChunk = 64 * kMiB;
  const auto workers = std::max(1U, std::thread::hardware_concurrency());
  std::atomic<uint64_t> next{0};
  std::atomic<int> error{0};
  auto populate = [&] {
    while (error.load(std::memory_order_relaxed) == 0 && !stop.stop_requested()) {
      const uint64_t begin = next.fetch_add(kChunk, std::memory_order_relaxed);
      if (begin >= size) return;
      const uint64_t bytes = std::min(kChunk, size - begin);
      // Without huge pages it is slower, not wrong.
      (void)Collapse(data + begin, bytes - bytes % kHugePageSize);
      if (::madvise(data + begin, bytes, MADV_POPULATE_WRITE) != 0) {
        error.store(errno, std::memory_order_relaxed);
      }
    }
  };
  std::vector<std::thread> threads;
  try {
    for (unsigned i = 1; i < workers && i * kChunk < size; ++i) threads.emplace_back(populate);
  } catch (const std::system_error&) {
    // A limit on threads; fewer will do.
  }
  populate();
  for (std::thread& thread : threads) thread.join();
  if (error != 0) return ErrnoStatus(error, "populating guest RAM");
  if (next.load() < size) return absl::CancelledError("populating guest RAM was given up");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestMemory>> GuestMemory::Create(
    const GuestMemoryOptions& options) {
  const uint64_t size = options.layout.ram_bytes;
  if (options.populate_and_lock) {
    // An early "no" instead of the OOM killer.
    const uint64_t needed = size + size / kPageTablesShare + kServerBytes;
    if (const uint64_t available = AvailableMemoryBytes(); needed > available) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory_mb: ", size / kMiB,
                       " MiB of RAM can't be populated, the host or the server's cgroup has only ",
                       available / kMiB,
                       " MiB left for all that a VM needs; ask for less, raise the limit, or set "
                       "allow_overcommit"));
    }
  }
  UniqueFd fd(::memfd_create("guest-ram", MFD_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "memfd_create for guest RAM");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return WithContext(ErrnoStatus(errno, "sizing guest RAM"), "memory_mb");
  }
  // Aligned, so that a huge page of the file is one of the guest too.
  auto mapping = Mapping::CreateAligned(size, kHugePageSize, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_NORESERVE, fd.get(), 0,
                                        "memory_mb: mapping guest RAM");
  if (!mapping.ok()) {
    return absl::ResourceExhaustedError(std::string(mapping.status().message()));
  }
  // A core dump of the server is about the server; guest RAM would make it unusable and leak the
  // guest.
  ::madvise(mapping->data(), size, MADV_DONTDUMP);
  if (options.populate_and_lock) {
    absl::Status status = Populate(mapping->data(), size, options.stop);
    if (absl::IsCancelled(status)) return status;
    if (status.ok() && ::mlock(mapping->data(), size) != 0) {
      status = ErrnoStatus(errno, "locking guest RAM");
    }
    if (!status.ok()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory_mb: ", std::string(status.message()),
                       "; raise the memory and memlock limits or set allow_overcommit"));
    }
  }
  auto memory = std::unique_ptr<GuestMemory>(
      new GuestMemory(options.layout, std::move(fd), std::move(mapping).value()));
  memory->populated_ = options.populate_and_lock;
  return memory;
}

std::span<uint8_t> GuestMemory::Run(uint64_t gpa, uint64_t size, Access access,
                                    Backing backing) const {
  for (const RamRange& range : layout_.ram) {
    if (gpa < range.guest.base || gpa - range.guest.base >= range.guest.size) continue;
    const uint64_t skip = gpa - range.guest.base;
    return {mapping_.data() + range.file_offset + skip, std::min(size, range.guest.size - skip)};
  }
  if (backing == Backing::kRam) return {};
  const std::shared_lock lock(device_memory_mutex_);
  for (const DeviceMemory& device : device_memory_) {
    if (gpa < device.guest.base || gpa - device.guest.base >= device.guest.size) continue;
    if (access == Access::kWrite && device.most != Access::kWrite) return {};
    const uint64_t skip = gpa - device.guest.base;
    return {device.host + skip, std::min(size, device.guest.size - skip)};
  }
  return {};
}

absl::Status GuestMemory::AddDeviceMemory(uint64_t gpa, std::span<uint8_t> host, Access most) {
  const AddressRange range = {.base = gpa, .size = host.size()};
  if (host.empty() || range.end() < range.base) {
    return absl::InvalidArgumentError(
        absl::StrFormat("device memory at %#x, %u bytes", gpa, host.size()));
  }
  const auto taken = [&](const AddressRange& other) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "device memory at %#x, %u bytes, overlaps memory at %#x", gpa, host.size(), other.base));
  };
  for (const RamRange& ram : layout_.ram) {
    if (ram.guest.Overlaps(range)) return taken(ram.guest);
  }
  const std::unique_lock lock(device_memory_mutex_);
  for (const DeviceMemory& device : device_memory_) {
    if (device.guest.Overlaps(range)) return taken(device.guest);
  }
  device_memory_.push_back({range, host.data(), most});
  return absl::OkStatus();
}

absl::Status GuestMemory::RemoveDeviceMemory(uint64_t gpa) {
  const std::unique_lock lock(device_memory_mutex_);
  const auto at = std::find_if(device_memory_.begin(), device_memory_.end(),
                               [gpa](const DeviceMemory& d) { return d.guest.base == gpa; });
  if (at == device_memory_.end()) {
    return absl::NotFoundError(absl::StrFormat("no device memory at %#x", gpa));
  }
  device_memory_.erase(at);
  return absl::OkStatus();
}

absl::StatusOr<std::span<uint8_t>> GuestMemory::HostRange(uint64_t gpa, uint64_t size,
                                                          Access access, Backing backing) const {
  const std::span<uint8_t> run = Run(gpa, size, access, backing);
  if (run.data() == nullptr || run.size() != size) {
    return absl::OutOfRangeError(
        absl::StrFormat("guest address 0x%x + 0x%x is not in one range of RAM", gpa, size));
  }
  return run;
}

std::vector<GuestMemory::HostRegion> GuestMemory::HostRegions() const {
  std::vector<HostRegion> regions;
  for (const RamRange& range : layout_.ram) {
    regions.push_back({.guest = range.guest,
                       .host = mapping_.data() + range.file_offset,
                       .most = Access::kWrite});
  }
  const std::shared_lock lock(device_memory_mutex_);
  for (const DeviceMemory& device : device_memory_) {
    regions.push_back({.guest = device.guest, .host = device.host, .most = device.most});
  }
  return regions;
}

namespace {

// Applies `copy(host bytes, offset)` to each run of [gpa, gpa + size) after checking that all of it
// is RAM.
template <typename RunAt, typename Copy>
absl::Status ForEachRun(uint64_t gpa, uint64_t size, const RunAt& run_at, const Copy& copy) {
  if (size > UINT64_MAX - gpa) return absl::OutOfRangeError("guest address range wraps around");
  for (uint64_t done = 0; done < size;) {
    const std::span<uint8_t> run = run_at(gpa + done, size - done);
    if (run.empty()) {
      return absl::OutOfRangeError(
          absl::StrFormat("guest address 0x%x + 0x%x is not RAM at 0x%x", gpa, size, gpa + done));
    }
    done += run.size();
  }
  for (uint64_t done = 0; done < size;) {
    const std::span<uint8_t> run = run_at(gpa + done, size - done);
    // A device's memory that has gone meanwhile.
    if (run.empty()) return absl::OutOfRangeError("a device's memory was removed");
    copy(run, done);
    done += run.size();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GuestMemory::Read(uint64_t gpa, std::span<uint8_t> bytes) const {
  return ForEachRun(
      gpa, bytes.size(), [&](uint64_t at, uint64_t size) { return Run(at, size, Access::kRead); },
      [&](std::span<uint8_t> run, uint64_t offset) {
        std::memcpy(bytes.data() + offset, run.data(), run.size());
      });
}

absl::Status GuestMemory::Write(uint64_t gpa, std::span<const uint8_t> bytes) {
  return ForEachRun(
      gpa, bytes.size(), [&](uint64_t at, uint64_t size) { return Run(at, size, Access::kWrite); },
      [&](std::span<uint8_t> run, uint64_t offset) {
        std::memcpy(run.data(), bytes.data() + offset, run.size());
      });
}

absl::Status GuestMemory::Zero(uint64_t gpa, uint64_t size) {
  return ForEachRun(
      gpa, size, [&](uint64_t at, uint64_t left) { return Run(at, left, Access::kWrite); },
      [&](std::span<uint8_t> run, uint64_t) { std::memset(run.data(), 0, run.size()); });
}

void GuestMemory::BackWithHugePages(uint64_t gpa, uint64_t size) {
  for (const RamRange& range : layout_.ram) {
    const uint64_t begin = std::max(gpa, range.guest.base);
    const uint64_t end = std::min(gpa + std::min(size, UINT64_MAX - gpa), range.guest.end());
    if (begin >= end) continue;
    // Aligned in the file; where the guest's address isn't congruent with it, KVM maps small pages
    // all the same.
    const uint64_t first = AlignUp(range.file_offset + (begin - range.guest.base), kHugePageSize);
    const uint64_t last = (range.file_offset + (end - range.guest.base)) & ~(kHugePageSize - 1);
    if (first < last) (void)Collapse(mapping_.data() + first, last - first);
  }
}

uint64_t GuestMemory::Discard(std::span<const uint8_t> host) {
  if (populated_) return 0;
  const auto base = reinterpret_cast<uintptr_t>(mapping_.data());
  const auto begin = reinterpret_cast<uintptr_t>(host.data());
  if (begin < base || begin - base > mapping_.size() ||
      host.size() > mapping_.size() - (begin - base)) {
    return 0;
  }
  // The mapping is the whole file.
  const uint64_t first = AlignUp(begin - base, kPageSize);
  const uint64_t last = (begin - base + host.size()) & ~(kPageSize - 1);
  if (first >= last) return 0;
  // Best effort: a host that can't keeps them.
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(first),
                  static_cast<off_t>(last - first)) != 0) {
    return 0;
  }
  return last - first;
}

absl::Status GuestMemory::DiscardAll() {
  if (populated_) {
    // Locked pages can't be punched out, and giving them back could fail the next populate.
    std::memset(mapping_.data(), 0, mapping_.size());
    return absl::OkStatus();
  }
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(mapping_.size())) != 0) {
    return ErrnoStatus(errno, "discarding guest RAM");
  }
  return absl::OkStatus();
}

uint64_t GuestMemory::ResidentBytes() const {
  // A memfd has no holes to account for but its unpopulated pages; st_blocks counts 512-byte units.
  struct stat info {};
  CHECK(::fstat(fd_.get(), &info) == 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

void GuestMemory::Inspect(inspect::Node& node) const {
  node.Value("ram_bytes", layout_.ram_bytes);
  node.Value("resident_bytes", ResidentBytes());
  node.Value("populated", populated_);
  node.Child("layout", layout_);
}

}  // namespace bothy::memory
