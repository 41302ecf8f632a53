// ScriptedDisk: a disk in memory for tests of what uses disks: says what the test wants of where
// its bytes lie, fails what it wants failed, completes in a random order, and remembers what a
// crash would leave.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/disk.h"
#include "support/check.h"
#include "support/io_loop.h"

namespace bothy::virtio::testing {

// Copies from memory that others may store to meanwhile. Out of ThreadSanitizer's sight, where a
// real disk's system calls are, too.
__attribute__((noinline, no_sanitize("thread"))) inline void CopyShared(uint8_t* to,
                                                                        const uint8_t* from,
                                                                        size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    to[i] = from[i];
    asm volatile("" ::: "memory");  // or it becomes a memcpy, which is in its sight
  }
}

class ScriptedDisk final : public disk::Disk {
 public:
  ScriptedDisk(IoLoop& loop, uint64_t size_bytes, bool read_only = false)
      : loop_(loop), bytes_(size_bytes), durable_(size_bytes) {
    geometry_.size_bytes = size_bytes;
    geometry_.read_only = read_only;
  }
  ~ScriptedDisk() override {
    CHECK(in_flight_ == 0);
    if (closed_flag != nullptr) *closed_flag = closed_;
  }

  void Submit(disk::Request& request) override {
    CHECK(!closed_);
    ++in_flight_;
    waiting_.push_back(&request);
    loop_.Post([this] {
      const size_t i = random_() % waiting_.size();
      disk::Request* const next = waiting_[i];
      waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
      absl::Status status = Perform(*next);
      --in_flight_;
      next->Complete(std::move(status));
    });
  }
  [[nodiscard]] const disk::Geometry& geometry() const override { return geometry_; }
  Task<absl::StatusOr<disk::Extent>> MapExtent(uint64_t offset) override {
    disk::Extent extent;
    extent.length = geometry_.size_bytes - offset;
    if (on_map) extent = on_map(offset);
    co_return extent;
  }
  Task<MappedSync> SyncMapped() override {
    MappedSync sync = co_await disk::Disk::SyncMapped();
    if (on_sync) sync = on_sync(std::move(sync));
    co_return sync;
  }
  Task<absl::Status> Close() override {
    CHECK(in_flight_ == 0);
    closed_ = true;
    durable_ = bytes_;
    if (on_close) on_close(durable_);
    co_return absl::OkStatus();
  }
  [[nodiscard]] std::string_view format() const override { return "scripted"; }
  [[nodiscard]] const std::string& path() const override { return path_; }
  [[nodiscard]] std::vector<disk::Fact> Facts() const override { return {}; }

  // On the loop's thread, or before the disk is used.
  std::function<absl::Status(const disk::Request&)> on_request;  // not OK: fails the request
  std::function<disk::Extent(uint64_t)> on_map;
  std::function<MappedSync(MappedSync)> on_sync;  // answers instead
  std::function<void(const std::vector<uint8_t>&)> on_close;
  bool* closed_flag = nullptr;  // set when the disk ends: whether it had been closed
  [[nodiscard]] std::vector<uint8_t>& bytes() { return bytes_; }
  // What the last flush made durable.
  [[nodiscard]] const std::vector<uint8_t>& durable() const { return durable_; }

 private:
  absl::Status Perform(disk::Request& request) {
    if (absl::Status status = disk::CheckRequest(geometry_, request); !status.ok()) return status;
    if (on_request) {
      if (absl::Status status = on_request(request); !status.ok()) return status;
    }
    if (request.operation == disk::Operation::kFlush) durable_ = bytes_;
    uint64_t at = request.offset;
    for (const iovec& buffer : request.buffers) {
      auto* const memory = static_cast<uint8_t*>(buffer.iov_base);
      if (request.operation == disk::Operation::kWrite) {
        CopyShared(bytes_.data() + at, memory, buffer.iov_len);
      } else {
        CopyShared(memory, bytes_.data() + at, buffer.iov_len);
      }
      at += buffer.iov_len;
    }
    return absl::OkStatus();
  }

  IoLoop& loop_;
  disk::Geometry geometry_;
  std::string path_ = "scripted.img";
  std::vector<uint8_t> bytes_;
  std::vector<uint8_t> durable_;
  std::vector<disk::Request*> waiting_;
  std::minstd_rand random_{7};
  size_t in_flight_ = 0;
  bool closed_ = false;
};

}  // namespace bothy::virtio::testing
