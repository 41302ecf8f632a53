// Copies the segments of an ELF image to guest RAM.
//
// Through buffers that helpers of ParallelWork empty, and fill, too, where the packing has blocks
// that can be unpacked by themselves. Pages of zeroes aren't written: a third of a Linux kernel is
// padding and memory that begins as zero, which then costs neither time nor RAM of the host until
// the guest touches it. Only where huge pages are there already is a block unpacked in place.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "boot/boot_file.h"
#include "boot/elf_image.h"
#include "boot/huge_page_backing.h"
#include "boot/parallel_work.h"
#include "boot/payload_decoder.h"
#include "memory/guest_memory.h"
#include "support/mapping.h"
#include "support/status.h"

namespace bothy::boot {

// Whether a kernel can be loaded to `range` in RAM of this layout: InvalidArgument where RAM can
// never be, ResourceExhausted where there just isn't enough.
absl::Status CheckRangeIsRam(const memory::AddressRange& range, const memory::Layout& layout);

// One loading. `memory` and `work` must outlive it; work.Finish() says when everything is there.
class SegmentLoader {
 public:
  // What is written to is backed by `huge_pages` first, which outlives the tasks.
  SegmentLoader(memory::GuestMemory& memory, HugePageBacking& huge_pages, ParallelWork& work)
      : memory_(memory), work_(work), shared_(std::make_shared<Shared>(huge_pages)) {}

  // From an ELF file as it is.
  absl::Status LoadFile(const BootFile& file, const ElfImage& image);
  // Reads the headers from the beginning of the decoder's output, then the segments; returns what
  // the headers said.
  absl::StatusOr<ElfImage> LoadStream(const BootFile& file, PayloadDecoder& decoder);

 private:
  // Where the bytes of a segment go; all of it is RAM.
  struct Target {
    uint64_t file_offset;
    uint64_t gpa;
    std::span<uint8_t> memory;
  };
  // What tasks use, which may outlive the loader when it fails half-way.
  struct Shared {
    explicit Shared(HugePageBacking& backing) : huge_pages(backing) {}
    HugePageBacking& huge_pages;
    std::vector<Target> targets;  // ascending by file offset; unchanged once tasks exist
    std::mutex mutex;
    std::vector<Mapping> free_buffers;  // guarded by mutex
  };

  absl::Status ResolveTargets(const ElfImage& image);
  // Has every block from the one at `position` of the stream on unpacked to where it belongs.
  absl::Status LoadBlocks(const BootFile& file, PayloadDecoder& decoder, uint64_t position,
                          uint64_t file_end);
  static absl::Status LoadBlock(Shared& shared, const BootFile& file,
                                const PayloadDecoder::Block& block, uint64_t position,
                                uint64_t file_end);
  // A buffer of at least `bytes`.
  static absl::StatusOr<Mapping> TakeBuffer(Shared& shared, size_t bytes);
  static void GiveBack(Shared& shared, Mapping buffer);
  // Has the first `bytes` of `buffer`, which lie at `file_offset`, copied to where they belong.
  void Submit(uint64_t file_offset, Mapping buffer, size_t bytes);
  static void Deposit(const Shared& shared, uint64_t file_offset, std::span<const uint8_t> bytes);
  // Guest RAM that [file_offset, file_offset + bytes) belongs to as a whole, once huge pages
  // have been asked for; empty: there is none, or none are wanted.
  static std::span<uint8_t> InPlace(const Shared& shared, uint64_t file_offset, size_t bytes);

  memory::GuestMemory& memory_;
  ParallelWork& work_;
  std::shared_ptr<Shared> shared_;
};

// Generous for what a linker puts between segments and what the kernel's build appends
// (relocations); a limit for a stream that claims to unpack to petabytes.
inline constexpr uint64_t kMaxPassedOverBytes = uint64_t{32} << 20;

}  // namespace bothy::boot
