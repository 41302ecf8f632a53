// DiskLoad: requests of one kind and size against a disk, so many at a time, as fast as they come
// back. It allocates nothing while it runs.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "bench/process.h"
#include "disk/disk.h"
#include "support/io_loop.h"

namespace bothy::bench {

class DiskLoad {
 public:
  enum class Order : uint8_t {
    kRandom,  // uniform over the span
    kStride,  // each `stride` bytes after the last, modulo the span, as qemu-img bench does it
  };
  struct Options {
    disk::Operation operation = disk::Operation::kRead;
    uint64_t block_bytes = 4096;
    uint32_t depth = 1;
    uint64_t span_bytes = 0;  // 0: the whole disk
    Order order = Order::kRandom;
    uint64_t stride_bytes = 0;  // 0: block_bytes
    uint64_t start_bytes = 0;   // kStride: the first offset
    uint64_t count = 0;         // ends after so many requests, or, if 0,
    double seconds = 1;         // after so long
  };
  struct Result {
    uint64_t requests = 0;
    double seconds = 0;
    double cpu_seconds = 0;  // of the whole process
  };

  DiskLoad(IoLoop& loop, disk::Disk& disk, const Options& options);
  ~DiskLoad();

  // Runs the loop until the end; a request that fails ends the benchmark.
  Result Run();

 private:
  class Slot;
  uint64_t NextOffset();
  void SubmitNext(Slot& slot);

  IoLoop& loop_;
  disk::Disk& disk_;
  Options options_;
  uint64_t blocks_ = 0;  // of the span
  uint64_t next_ = 0;    // kStride
  std::minstd_rand random_;
  Time end_;
  uint64_t begun_ = 0;
  uint64_t done_ = 0;
  uint32_t in_flight_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace bothy::bench
