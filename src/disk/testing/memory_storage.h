// MemoryStorage: a Storage in memory for tests and fuzzers, which sees and decides everything.
//
// Requests wait in a queue until Pump completes one, in submission order or in a seeded random one,
// so that tests exercise every interleaving that a real host could show. Sparse: chunks nobody
// wrote take no room.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "disk/storage.h"
#include "support/check.h"

namespace bothy::disk {

class MemoryStorage final : public Storage {
 public:
  struct Options {
    std::string path = "memory.img";
    bool read_only = false;
    // Complete inside Submit; false: when Pump says so.
    bool immediate = false;
    uint64_t seed = 0;                       // 0: in submission order
    uint64_t max_bytes = uint64_t{1} << 62;  // writes past it: ResourceExhausted
  };
  using Chunks = std::map<uint64_t, std::vector<uint8_t>>;  // by offset / kChunkBytes
  static constexpr uint64_t kChunkBytes = uint64_t{64} * 1024;

  explicit MemoryStorage(Options options) : options_(std::move(options)), random_(options_.seed) {}
  MemoryStorage() : MemoryStorage(Options{}) {}
  ~MemoryStorage() override { CHECK(waiting_.empty()); }

  void Submit(Request& request) override;
  [[nodiscard]] uint64_t size() const override { return size_; }
  Task<absl::Status> Resize(uint64_t bytes) override;
  absl::Status Refresh() override { return absl::OkStatus(); }
  [[nodiscard]] const std::string& path() const override { return options_.path; }
  [[nodiscard]] bool read_only() const override { return options_.read_only; }
  [[nodiscard]] uint32_t logical_block_bytes() const override { return 512; }
  [[nodiscard]] uint32_t physical_block_bytes() const override { return 4096; }
  [[nodiscard]] int fd() const override { return -1; }

  // Completes one waiting request; false when there is none.
  bool Pump();
  [[nodiscard]] size_t waiting() const { return waiting_.size(); }

  // The contents, for tests that look at or change an image directly.
  void Peek(uint64_t offset, std::span<uint8_t> bytes) const;
  void Poke(uint64_t offset, std::span<const uint8_t> bytes);
  void Truncate(uint64_t bytes);
  // What isn't a hole.
  [[nodiscard]] const Chunks& chunks() const { return chunks_; }
  [[nodiscard]] size_t resident_bytes() const { return chunks_.size() * kChunkBytes; }

  // Called before a request takes effect; a status that isn't OK fails it instead.
  std::function<absl::Status(const Request&)> on_request;
  // Called by Resize before it takes effect.
  std::function<absl::Status(uint64_t bytes)> on_resize;

 private:
  absl::Status Perform(Request& request);
  void Zero(uint64_t offset, uint64_t length);

  Options options_;
  std::mt19937_64 random_;
  uint64_t size_ = 0;
  Chunks chunks_;
  std::vector<Request*> waiting_;
};

// Runs `task` to its end, pumping `storages` whenever it waits.
template <typename T>
T Await(Task<T> task, std::span<MemoryStorage* const> storages) {
  std::optional<T> result;
  Start(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
  while (!result.has_value()) {
    bool progress = false;
    for (MemoryStorage* storage : storages) progress |= storage->Pump();
    CHECK(progress || result.has_value());
  }
  return *std::move(result);
}
template <typename T>
T Await(Task<T> task, MemoryStorage& storage) {
  MemoryStorage* one = &storage;
  return Await(std::move(task), std::span<MemoryStorage* const>(&one, 1));
}

}  // namespace bothy::disk
