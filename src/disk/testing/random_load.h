// RandomLoad: random reads, writes, discards, zeroes and flushes on a disk, many at a time, checked
// against a SectorHistory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/sector_history.h"

namespace bothy::disk {

// `fallback`, or what the environment variable BOTHY_DISK_OPERATIONS says, for long rounds.
uint64_t OperationsOr(uint64_t fallback);
// `seed`, shifted by the environment variable BOTHY_DISK_SEED where there is one: another run.
uint64_t SeedFrom(uint64_t seed);

class RandomLoad {
 public:
  struct Options {
    uint64_t seed = 1;
    uint32_t max_in_flight = 16;
    uint32_t max_sectors = 64;      // of most requests
    uint32_t large_sectors = 2048;  // of one in sixteen
    bool discard = true;
    // Operations that fail don't fail the load: their sectors may hold the old or the new.
    bool allow_errors = false;
  };
  // What a flush had covered when it was done.
  struct Flushed {
    std::vector<uint32_t> done;  // SectorHistory::Done when it was submitted
    size_t position = 0;         // position() when it completed
  };

  // `history` and the storages outlive it.
  RandomLoad(Disk& disk, SectorHistory& history, std::vector<MemoryStorage*> storages,
             Options options);
  ~RandomLoad();

  // Performs `operations` of them and waits for all. Empty, or the first thing that was wrong.
  std::string Run(uint64_t operations);
  // Reads the whole disk.
  std::string Verify();

  // Where in a recording things are; remembered with each flush.
  std::function<size_t()> position = [] { return size_t{0}; };
  [[nodiscard]] const std::vector<Flushed>& flushed() const { return flushed_; }
  [[nodiscard]] uint64_t errors() const { return errors_; }

 private:
  struct Running;
  void Begin();
  void End(Running& running, const absl::Status& status);
  bool Pump();

  Disk& disk_;
  SectorHistory& history_;
  std::vector<MemoryStorage*> storages_;
  Options options_;
  std::mt19937_64 random_;
  std::vector<bool> busy_;
  std::vector<bool> changing_;
  std::vector<std::unique_ptr<Running>> running_;
  uint64_t next_number_ = 1;
  uint64_t errors_ = 0;
  std::string wrong_;
  std::vector<Flushed> flushed_;
};

}  // namespace bothy::disk
