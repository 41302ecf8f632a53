// CrashRecorder: a Storage that remembers every change, to make the files a crash could leave.
//
// A crash may keep or lose, sector by sector of 512 bytes, whatever no flush had covered; a flush
// covers what had completed when it was submitted.
//
//   CrashRecorder recorder(memory);
//   ... run a disk on it ...
//   for (size_t at = 0; at <= recorder.events(); ++at) recorder.Replay(at, seed, crashed);
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "disk/storage.h"
#include "disk/testing/memory_storage.h"

namespace bothy::disk {

class CrashRecorder final : public Storage {
 public:
  // `memory` outlives it; its contents now are those before all events.
  explicit CrashRecorder(MemoryStorage& memory);
  ~CrashRecorder() override;

  void Submit(Request& request) override;
  [[nodiscard]] uint64_t size() const override { return memory_.size(); }
  Task<absl::Status> Resize(uint64_t bytes) override { return memory_.Resize(bytes); }
  absl::Status Refresh() override { return absl::OkStatus(); }
  [[nodiscard]] const std::string& path() const override { return memory_.path(); }
  [[nodiscard]] bool read_only() const override { return memory_.read_only(); }
  [[nodiscard]] uint32_t logical_block_bytes() const override { return 512; }
  [[nodiscard]] uint32_t physical_block_bytes() const override { return 4096; }
  [[nodiscard]] int fd() const override { return -1; }

  // Changes so far: where a crash can be.
  [[nodiscard]] size_t events() const { return events_.size(); }
  // Makes `to`, which is empty, what a crash after the first `count` events may leave. Seed 0 keeps
  // all of them, others are random.
  void Replay(size_t count, uint64_t seed, MemoryStorage& to) const;

 private:
  enum class Kind : uint8_t { kWrite, kZero, kResize };
  struct Event {
    Kind kind = Kind::kWrite;
    uint64_t offset = 0;
    uint64_t length = 0;  // kResize: the new size
    std::vector<uint8_t> bytes;
    bool extends = false;
  };
  struct FlushDone {
    size_t at = 0;       // events when it completed
    size_t covered = 0;  // events when it was submitted
  };

  void Record(const Request& request);
  static void Apply(const Event& event, uint64_t begin, uint64_t end, MemoryStorage& to);

  MemoryStorage& memory_;
  uint64_t base_size_;
  MemoryStorage::Chunks base_;
  std::vector<Event> events_;
  std::vector<FlushDone> flushes_;
  std::map<const Request*, size_t> flushing_;
};

}  // namespace bothy::disk
