// Kernels made up for tests: ELF files and bzImages with chosen faults.
#pragma once

#include <asm/bootparam.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "support/unique_fd.h"

namespace bothy::boot {

using ByteVector = std::vector<uint8_t>;

struct TestSegment {
  uint64_t gpa = 0;
  ByteVector bytes;
  uint64_t memory_bytes = 0;                           // 0: as many as `bytes`
  std::optional<uint64_t> file_offset = std::nullopt;  // default: behind what is there already
};

struct TestElf {
  uint64_t entry = 0;
  std::vector<TestSegment> segments = {};
  std::vector<ByteVector> notes = {};  // one PT_NOTE segment each
  uint16_t machine = 62;               // x86-64
  uint16_t type = 2;                   // executable
};
ByteVector BuildElf(const TestElf& elf);
// One ELF note, padded.
ByteVector BuildNote(const std::string& name, uint32_t type, const ByteVector& descriptor);
ByteVector BuildPvhNote(uint32_t entry);

enum class Packing { kStored, kGzip, kXz, kXzX86, kZstd, kLz4 };
inline constexpr Packing kAllPackings[] = {Packing::kStored, Packing::kGzip, Packing::kXz,
                                           Packing::kXzX86,  Packing::kZstd, Packing::kLz4};
// `bytes` packed as the kernel's build does, the appended size included where it appends one.
ByteVector Pack(const ByteVector& bytes, Packing packing);
// As Pack with kLz4, where the first blocks hold so many bytes, instead of 8 MiB, each.
ByteVector PackLz4Blocks(const ByteVector& bytes, const std::vector<size_t>& first_blocks);

// A bzImage of boot protocol 2.15 with `payload`; `adjust` may change its header first.
ByteVector BuildBzImage(const ByteVector& payload,
                        const std::function<void(setup_header&)>& adjust = nullptr);
// Offsets in what BuildBzImage returns.
inline constexpr size_t kTestSetupBytes = 1024;
inline constexpr size_t kTestPayloadOffset = 0x400;  // in the protected-mode part

// Bytes that don't repeat much, but have pages of zeroes among them.
ByteVector Scramble(size_t bytes, uint32_t seed);

// A file that exists as long as the object.
class TestFile {
 public:
  explicit TestFile(std::span<const uint8_t> bytes);
  [[nodiscard]] std::string path() const;
  // Cuts it short or makes it longer.
  void Resize(uint64_t bytes);

 private:
  UniqueFd fd_;
};

}  // namespace bothy::boot
