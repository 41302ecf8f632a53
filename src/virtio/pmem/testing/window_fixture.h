// What tests of windows have in common: a loop with its thread, windows made and ended there, and a
// guest that stores.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "disk/open_image.h"
#include "support/io_loop.h"
#include "support/testing/test_folder.h"
#include "virtio/pmem/pmem_window.h"
#include "virtio/pmem/testing/scripted_disk.h"

namespace bothy::virtio::testing {

// A guest's accesses: not this program's, so out of ThreadSanitizer's sight.
__attribute__((noinline, no_sanitize("thread"))) inline void GuestStore(uint8_t* at,
                                                                        uint64_t value) {
  __atomic_store_n(reinterpret_cast<uint64_t*>(at), value, __ATOMIC_RELAXED);
}
__attribute__((noinline, no_sanitize("thread"))) inline uint64_t GuestLoad(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_RELAXED);
}

class WindowTest : public ::testing::Test {
 protected:
  WindowTest() : thread_(*IoThread::Create("io-pmem0", {})) {}
  ~WindowTest() override { CHECK(window_ == nullptr); }

  [[nodiscard]] IoLoop& loop() { return thread_->loop(); }
  // Runs `make()`'s task on the loop; its result.
  template <typename Make>
  auto OnLoop(Make make) {
    using T = decltype(ResultOf(make()));
    std::promise<T> result;
    loop().Post([&] { Start(make(), [&result](T value) { result.set_value(std::move(value)); }); });
    return result.get_future().get();
  }

  absl::Status Open(std::unique_ptr<disk::Disk> disk, PmemWindowOptions options = {}) {
    options.name = "pmem0";
    absl::StatusOr<std::unique_ptr<PmemWindow>> window =
        OnLoop([&] { return PmemWindow::Create(loop(), std::move(disk), std::move(options)); });
    if (!window.ok()) return window.status();
    window_ = *std::move(window);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<disk::Disk>> OpenImage(const std::string& path,
                                                        disk::ImageType type,
                                                        bool read_only = false) {
    return OnLoop([&] {
      return disk::OpenImage(loop(), path, type, disk::OpenImageOptions{.read_only = read_only});
    });
  }
  absl::Status Flush() {
    return OnLoop([this] { return window_->Flush(); });
  }
  absl::Status Close() {
    absl::Status status = OnLoop([this] { return window_->Close(); });
    window_.reset();
    return status;
  }

  [[nodiscard]] uint8_t* At(uint64_t offset) { return window_->host().data() + offset; }
  void Store(uint64_t offset, uint64_t value) { GuestStore(At(offset), value); }
  uint64_t Load(uint64_t offset) { return GuestLoad(At(offset)); }

  // Whether this host lets pages be filled on demand; tests that need it are skipped where not.
  static bool HostHasUserFaults() {
    struct Nobody final : UserFaults::Handler {
      void OnMissing(uint64_t /*offset*/, bool /*store*/) override {}
      void OnProtected(uint64_t /*offset*/) override {}
    };
    Nobody nobody;
    const auto faults = UserFaults::Create({}, true, "probe", nobody);
    CHECK(faults.ok() || absl::IsFailedPrecondition(faults.status()));
    return faults.ok();
  }

  std::unique_ptr<IoThread> thread_;
  TestFolder folder_;
  std::unique_ptr<PmemWindow> window_;

 private:
  template <typename T>
  static T ResultOf(Task<T>&&);
};

#define SKIP_WITHOUT_USERFAULTFD()                                                        \
  if (!HostHasUserFaults()) {                                                             \
    GTEST_SKIP() << "this host forbids userfaultfd: pages can't be filled on demand, so " \
                    "none of it is tested";                                               \
  }                                                                                       \
  static_assert(true)

}  // namespace bothy::virtio::testing
