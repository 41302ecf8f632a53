// BorrowedStorage: gives a disk, which owns its storage, one that somebody else keeps. What is
// derived from it does some things itself and leaves the others to that storage.
#pragma once

#include <string>

#include "disk/storage.h"

namespace bothy::disk {

class BorrowedStorage : public Storage {
 public:
  // `storage` outlives it.
  explicit BorrowedStorage(Storage& storage) : storage_(storage) {}

  void Submit(Request& request) override { storage_.Submit(request); }
  [[nodiscard]] uint64_t size() const override { return storage_.size(); }
  Task<absl::Status> Resize(uint64_t bytes) override { return storage_.Resize(bytes); }
  absl::Status Refresh() override { return storage_.Refresh(); }
  [[nodiscard]] const std::string& path() const override { return storage_.path(); }
  [[nodiscard]] bool read_only() const override { return storage_.read_only(); }
  [[nodiscard]] uint32_t logical_block_bytes() const override {
    return storage_.logical_block_bytes();
  }
  [[nodiscard]] uint32_t physical_block_bytes() const override {
    return storage_.physical_block_bytes();
  }
  [[nodiscard]] int fd() const override { return storage_.fd(); }

 protected:
  [[nodiscard]] Storage& storage() { return storage_; }

 private:
  Storage& storage_;
};

}  // namespace bothy::disk
