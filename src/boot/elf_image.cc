#include "boot/elf_image.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boot/low_memory_map.h"
#include "support/endian.h"

namespace bothy::boot {
namespace {

constexpr uint32_t kXenNotePhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr std::string_view kXenNoteName("Xen\0", 4);

absl::StatusOr<ElfSegment> ToSegment(const Elf64_Phdr& header) {
  if (header.p_filesz > header.p_memsz) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "ELF segment at 0x%x has more bytes in the file than in memory", header.p_paddr));
  }
  if (header.p_memsz > UINT64_MAX - header.p_paddr ||
      header.p_filesz > UINT64_MAX - header.p_offset) {
    return absl::InvalidArgumentError("ELF segment wraps around the end of the address space");
  }
  if (header.p_paddr < kHighLoadBase) {
    return absl::InvalidArgumentError(
        absl::StrFormat("ELF segment at 0x%x lies below 1 MiB, where boot data and ACPI tables are",
                        header.p_paddr));
  }
  return ElfSegment{.file_offset = header.p_offset,
                    .file_bytes = header.p_filesz,
                    .memory = {header.p_paddr, header.p_memsz}};
}

absl::Status CheckDisjoint(const ElfImage& image) {
  uint64_t file_end = 0;
  for (const ElfSegment& segment : image.segments) {
    if (segment.file_bytes == 0) continue;
    if (segment.file_offset < file_end) {
      return absl::InvalidArgumentError("ELF segments share bytes of the file");
    }
    file_end = segment.file_end();
  }
  std::vector<memory::AddressRange> ranges;
  for (const ElfSegment& segment : image.segments) ranges.push_back(segment.memory);
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.base < b.base; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i - 1].Overlaps(ranges[i])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("ELF segments overlap in memory at 0x%x", ranges[i].base));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ElfHeader> ParseElfHeader(std::span<const uint8_t> bytes) {
  static_assert(sizeof(Elf64_Ehdr) == kElfHeaderBytes);
  if (bytes.size() < kElfHeaderBytes) return absl::InvalidArgumentError("ELF header is truncated");
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return absl::InvalidArgumentError("isn't an ELF file");
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return absl::InvalidArgumentError("ELF file isn't 64-bit little-endian");
  }
  if (header.e_machine != EM_X86_64) {
    return absl::InvalidArgumentError(absl::StrCat("ELF file is for another architecture (machine ",
                                                   header.e_machine, ", expected ", EM_X86_64,
                                                   " for x86-64)"));
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return absl::InvalidArgumentError("ELF file isn't an executable");
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr)) {
    return absl::InvalidArgumentError(absl::StrCat("ELF program headers have ", header.e_phentsize,
                                                   " bytes, expected ", sizeof(Elf64_Phdr)));
  }
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ELF file has ", header.e_phnum, " program headers, expected 1..", kMaxProgramHeaders));
  }
  return ElfHeader{
      .entry = header.e_entry,
      .program_headers = {header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr)}};
}

absl::StatusOr<ElfImage> ParseProgramHeaders(const ElfHeader& header,
                                             std::span<const uint8_t> table) {
  ElfImage image{.entry = header.entry, .segments = {}, .notes = {}, .span = {}};
  for (; table.size() >= sizeof(Elf64_Phdr); table = table.subspan(sizeof(Elf64_Phdr))) {
    Elf64_Phdr program_header;
    std::memcpy(&program_header, table.data(), sizeof program_header);
    if (program_header.p_type == PT_NOTE) {
      image.notes.push_back({program_header.p_offset, program_header.p_filesz});
    } else if (program_header.p_type == PT_LOAD && program_header.p_memsz != 0) {
      ASSIGN_OR_RETURN(const ElfSegment segment, ToSegment(program_header));
      image.segments.push_back(segment);
    }
  }
  if (image.segments.empty()) return absl::InvalidArgumentError("ELF file has nothing to load");
  std::sort(image.segments.begin(), image.segments.end(),
            [](const ElfSegment& a, const ElfSegment& b) { return a.file_offset < b.file_offset; });
  RETURN_IF_ERROR(CheckDisjoint(image));

  uint64_t base = UINT64_MAX;
  uint64_t end = 0;
  bool entry_inside = false;
  for (const ElfSegment& segment : image.segments) {
    base = std::min(base, segment.memory.base);
    end = std::max(end, segment.memory.end());
    entry_inside |= image.entry >= segment.memory.base && image.entry < segment.memory.end();
  }
  image.span = {base, end - base};
  if (!entry_inside) {
    return absl::InvalidArgumentError(
        absl::StrFormat("ELF entry point 0x%x lies outside every segment", image.entry));
  }
  return image;
}

absl::StatusOr<std::optional<uint32_t>> FindPvhEntry(std::span<const uint8_t> notes) {
  // Names and descriptors are padded to 4 bytes each, which the last one may lack.
  auto padded = [](uint64_t size) { return (size + 3) & ~uint64_t{3}; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data(), sizeof note);
    notes = notes.subspan(sizeof note);
    if (padded(note.n_namesz) + note.n_descsz > notes.size()) {
      return absl::InvalidArgumentError("ELF note is truncated");
    }
    const std::string_view name(reinterpret_cast<const char*>(notes.data()), note.n_namesz);
    const std::span<const uint8_t> descriptor = notes.subspan(padded(note.n_namesz), note.n_descsz);
    if (note.n_type == kXenNotePhys32Entry && name == kXenNoteName) {
      // 4 bytes, or 8 where the note was written for a 64-bit kernel.
      if (descriptor.size() == sizeof(uint32_t)) return LoadLe<uint32_t>(descriptor.data());
      if (descriptor.size() != sizeof(uint64_t) ||
          LoadLe<uint64_t>(descriptor.data()) > UINT32_MAX) {
        return absl::InvalidArgumentError("ELF note gives no 32-bit PVH entry point");
      }
      return LoadLe<uint32_t>(descriptor.data());
    }
    notes = notes.subspan(
        std::min<uint64_t>(padded(note.n_namesz) + padded(note.n_descsz), notes.size()));
  }
  return std::nullopt;
}

}  // namespace bothy::boot
