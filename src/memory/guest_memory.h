// GuestMemory: the guest's RAM, one memfd mapped once, and checked access to it by guest-physical
// address.
//
// Every access takes a guest-physical address and a length that are guest-controlled and checked
// here. Contents are hostile and change under our feet while vCPUs run: read what you need ONCE
// into a private copy (Read, ReadObject) and validate the copy; never keep a C++ reference into
// RAM. HostRange is for loaders before the guest runs and for I/O that hands the kernel a buffer.
//
// Thread-safe after Create; concurrent accesses to the same bytes race as they do between CPUs.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <stop_token>
#include <type_traits>
#include <vector>

#include "inspect/node.h"
#include "memory/layout.h"
#include "support/mapping.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::memory {

struct GuestMemoryOptions {
  Layout layout;
  // Populate every page (one thread a core) and lock it before Create returns; ResourceExhausted if
  // the host can't. False: pages appear as they are touched.
  bool populate_and_lock = false;
  // Populating much RAM takes seconds; Create gives up with Cancelled soon after a stop is
  // requested.
  std::stop_token stop = {};
};

enum class Access : uint8_t { kRead, kWrite };
enum class Backing : uint8_t { kAny, kRam };

class GuestMemory {
 public:
  static absl::StatusOr<std::unique_ptr<GuestMemory>> Create(const GuestMemoryOptions& options);

  [[nodiscard]] const Layout& layout() const { return layout_; }
  // Copies between RAM and `bytes`. OutOfRange, and nothing copied, unless all of [gpa, gpa + size)
  // is RAM; a range may span two RAM ranges that adjoin.
  absl::Status Read(uint64_t gpa, std::span<uint8_t> bytes) const;
  absl::Status Write(uint64_t gpa, std::span<const uint8_t> bytes);
  absl::Status Zero(uint64_t gpa, uint64_t size);

  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::StatusOr<T> ReadObject(uint64_t gpa)
  const {
    T value;
    RETURN_IF_ERROR(Read(gpa, {reinterpret_cast<uint8_t*>(&value), sizeof value}));
    return value;
  }
  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::Status WriteObject(uint64_t gpa, const T& value) {
    return Write(gpa, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
  }

  // Memory of a device that the guest addresses like RAM and may name in requests to other devices
  // (persistent memory), `most` for kRead or for both. AlreadyExists when it overlaps RAM or other
  // such memory. `host` stays readable and writable until GuestMemory ends, whatever
  // RemoveDeviceMemory says: I/O that was given an address in it may still be under way.
  absl::Status AddDeviceMemory(uint64_t gpa, std::span<uint8_t> host, Access most);
  // From now on its addresses are none. NotFound when none was added there.
  absl::Status RemoveDeviceMemory(uint64_t gpa);

  // The host's view of [gpa, gpa + size), or OutOfRange unless it lies within one range of RAM or,
  // unless `backing` is kRam, of a device's memory. kRead: the caller doesn't write to it, so
  // memory that is read-only will do.
  absl::StatusOr<std::span<uint8_t>> HostRange(uint64_t gpa, uint64_t size,
                                               Access access = Access::kWrite,
                                               Backing backing = Backing::kAny) const;

  // All that the guest can name to a device now, for those who look addresses up themselves
  // (vhost).
  struct HostRegion {
    AddressRange guest;
    uint8_t* host = nullptr;
    Access most = Access::kWrite;
  };
  [[nodiscard]] std::vector<HostRegion> HostRegions() const;

  // Backs those parts of [gpa, gpa + size) that are whole huge pages (2 MiB) of RAM with huge pages
  // now, contents kept: for RAM that is about to be touched anyway, one fault instead of 512 on the
  // host and again in the nested page table. Best effort: a host that can't leaves pages as they
  // are. Thread-safe.
  void BackWithHugePages(uint64_t gpa, uint64_t size);

  // Gives the pages that lie wholly in `host`, a part of RAM in this process, back to the host:
  // they read as zero when they are touched again. How many bytes that were: none of what isn't
  // RAM, and none at all of RAM that is populated and locked. Thread-safe, also while the guest
  // runs.
  uint64_t Discard(std::span<const uint8_t> host);

  // Drops all contents: every page reads as zero again (a machine reset keeps nothing). Only while
  // no vCPU runs.
  absl::Status DiscardAll();

  // Guest RAM that is resident on the host now, in bytes.
  [[nodiscard]] uint64_t ResidentBytes() const;
  // Sizes and the layout. Any thread.
  void Inspect(inspect::Node& node) const;
  // The memfd, for what shares guest RAM with another process (vhost-user, later).
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  GuestMemory(Layout layout, UniqueFd fd, Mapping mapping)
      : layout_(std::move(layout)), fd_(std::move(fd)), mapping_(std::move(mapping)) {}
  // The run of host bytes that begins at `gpa`, up to `size`; empty when `gpa` isn't RAM.
  [[nodiscard]] std::span<uint8_t> Run(uint64_t gpa, uint64_t size, Access access,
                                       Backing backing = Backing::kAny) const;

  struct DeviceMemory {
    AddressRange guest;
    uint8_t* host = nullptr;
    Access most = Access::kRead;
  };

  Layout layout_;
  UniqueFd fd_;
  Mapping mapping_;
  bool populated_ = false;
  // Only what isn't RAM is looked for there.
  mutable std::shared_mutex device_memory_mutex_;
  std::vector<DeviceMemory> device_memory_;  // guarded by device_memory_mutex_
};

}  // namespace bothy::memory
