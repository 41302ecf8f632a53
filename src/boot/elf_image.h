// ElfImage: what a 64-bit x86 ELF executable wants loaded where, parsed and checked.
//
// Knows nothing of files or RAM: the caller brings the bytes. Every number in them is hostile; an
// ElfImage that was returned is consistent in itself (below), but hasn't been held against the
// size of a file or of RAM.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/layout.h"
#include "support/status.h"

namespace bothy::boot {

// A PT_LOAD segment: file bytes [file_offset, file_offset + file_bytes) go to guest-physical
// address `memory.base`; the rest of `memory` is zero.
struct ElfSegment {
  uint64_t file_offset = 0;
  uint64_t file_bytes = 0;  // at most memory.size
  memory::AddressRange memory;
  [[nodiscard]] uint64_t file_end() const { return file_offset + file_bytes; }
};

// A run of bytes of the file, such as a PT_NOTE segment.
struct FileRange {
  uint64_t offset = 0;
  uint64_t size = 0;  // bytes
};

// Where the program header table lies.
struct ElfHeader {
  uint64_t entry = 0;  // guest-physical
  FileRange program_headers;
};

struct ElfImage {
  uint64_t entry = 0;  // inside one of the segments
  // Not empty, ascending by file offset. No two share file bytes or memory, none reaches below
  // 1 MiB, and no end overflows.
  std::vector<ElfSegment> segments;
  std::vector<FileRange> notes;
  // From the lowest to the highest byte of memory that any segment has.
  memory::AddressRange span;
};

inline constexpr size_t kElfHeaderBytes = 64;
// More than any kernel has; bounds what a hostile file can make us look at.
inline constexpr uint16_t kMaxProgramHeaders = 60;

// Parses the file header; `bytes` is the beginning of the file. InvalidArgument for what isn't a
// little-endian x86-64 executable.
absl::StatusOr<ElfHeader> ParseElfHeader(std::span<const uint8_t> bytes);

// Parses the program header table that `header` located, `table` being exactly its bytes.
absl::StatusOr<ElfImage> ParseProgramHeaders(const ElfHeader& header,
                                             std::span<const uint8_t> table);

// The 32-bit entry point that a note segment's bytes give for PVH (XEN_ELFNOTE_PHYS32_ENTRY,
// xen/include/public/elfnote.h), or nothing. InvalidArgument for malformed notes.
absl::StatusOr<std::optional<uint32_t>> FindPvhEntry(std::span<const uint8_t> notes);

}  // namespace bothy::boot
