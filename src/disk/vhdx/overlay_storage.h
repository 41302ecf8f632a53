// OverlayStorage: a storage that may not be changed, with changes kept in memory over it. Holds
// what the log of an image says that is opened read-only ([MS-VHDX] 2.3.3, note 5).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "disk/storage.h"
#include "disk/vhdx/format.h"

namespace bothy::disk::vhdx {

class OverlayStorage final : public Storage {
 public:
  // Pages, and ranges of zeros, that are kept at most; more is ResourceExhausted.
  static constexpr size_t kMaxPages = 8192;
  static constexpr size_t kMaxZeroRanges = 65536;

  // `base` outlives it.
  explicit OverlayStorage(Storage& base) : base_(base), size_(base.size()) {}

  // Writes are whole pages; zeroing has any length.
  void Submit(Request& request) override;
  [[nodiscard]] uint64_t size() const override { return size_; }
  Task<absl::Status> Resize(uint64_t bytes) override;
  absl::Status Refresh() override { return absl::OkStatus(); }
  [[nodiscard]] const std::string& path() const override { return base_.path(); }
  // To those who use it once it is filled.
  [[nodiscard]] bool read_only() const override { return true; }
  [[nodiscard]] uint32_t logical_block_bytes() const override {
    return base_.logical_block_bytes();
  }
  [[nodiscard]] uint32_t physical_block_bytes() const override {
    return base_.physical_block_bytes();
  }
  // The file isn't what is read here.
  [[nodiscard]] int fd() const override { return -1; }

 private:
  using Page = std::array<uint8_t, kPageBytes>;

  absl::Status Write(const Request& request);
  absl::Status Zero(uint64_t offset, uint64_t length);
  Task<absl::Status> Read(const Request& request);
  // The end of the run of one kind that begins at `offset`, at most `end`, and what it is.
  struct Run {
    uint64_t end;
    const Page* page = nullptr;
    bool zero = false;
  };
  [[nodiscard]] Run FindRun(uint64_t offset, uint64_t end) const;

  Storage& base_;
  uint64_t size_;
  std::map<uint64_t, std::unique_ptr<Page>> pages_;  // by offset
  std::map<uint64_t, uint64_t> zeros_;               // offset → end; apart from one another
};

}  // namespace bothy::disk::vhdx
