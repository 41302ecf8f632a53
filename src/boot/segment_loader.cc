#include "boot/segment_loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boot/large_buffer.h"
#include "support/endian.h"
#include "support/zero_bytes.h"

namespace bothy::boot {
namespace {

constexpr size_t kFileReadBytes = size_t{1} << 20;

// Copies `from` to `to`, which reads as zero, a page of `to` at a time.
void CopyNonZeroPages(uint8_t* to, std::span<const uint8_t> from) {
  while (!from.empty()) {
    const size_t in_page = memory::kPageSize - reinterpret_cast<uintptr_t>(to) % memory::kPageSize;
    const std::span<const uint8_t> page = from.first(std::min(in_page, from.size()));
    if (!IsZero(page)) std::memcpy(to, page.data(), page.size());
    to += page.size();
    from = from.subspan(page.size());
  }
}

absl::Status Truncated() {
  return absl::InvalidArgumentError("ELF file is truncated: a segment lies behind its end");
}

}  // namespace

absl::Status CheckRangeIsRam(const memory::AddressRange& range, const memory::Layout& layout) {
  for (const memory::RamRange& ram : layout.ram) {
    if (range.base >= ram.guest.base && range.end() <= ram.guest.end()) return absl::OkStatus();
  }
  if (range.Overlaps(layout.low_mmio) || range.Overlaps(layout.pci_mmio64)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "kernel wants to be loaded at 0x%x..0x%x, where devices are", range.base, range.end()));
  }
  return absl::ResourceExhaustedError(
      absl::StrFormat("kernel needs RAM at 0x%x..0x%x, the guest has only %d MiB", range.base,
                      range.end(), layout.ram_bytes / memory::kMiB));
}

absl::Status SegmentLoader::LoadFile(const BootFile& file, const ElfImage& image) {
  RETURN_IF_ERROR(ResolveTargets(image));
  for (const Target& target : shared_->targets) {
    for (uint64_t done = 0; done < target.memory.size();) {
      const size_t n = std::min<uint64_t>(kFileReadBytes, target.memory.size() - done);
      ASSIGN_OR_RETURN(Mapping buffer, TakeBuffer(*shared_, kFileReadBytes));
      RETURN_IF_ERROR(file.ReadAt(target.file_offset + done, buffer.bytes().first(n)));
      Submit(target.file_offset + done, std::move(buffer), n);
      done += n;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ElfImage> SegmentLoader::LoadStream(const BootFile& file, PayloadDecoder& decoder) {
  const size_t chunk_bytes = decoder.PreferredReadBytes();
  ASSIGN_OR_RETURN(Mapping buffer, TakeBuffer(*shared_, chunk_bytes));
  ASSIGN_OR_RETURN(size_t n, decoder.Read(buffer.bytes().first(chunk_bytes)));

  // The linker puts program headers right behind the file header.
  const std::span<const uint8_t> head = buffer.bytes().first(n);
  ASSIGN_OR_RETURN(const ElfHeader header, ParseElfHeader(head));
  const FileRange& table = header.program_headers;
  if (table.offset > head.size() || table.size > head.size() - table.offset) {
    return absl::InvalidArgumentError("ELF program headers aren't at the beginning of the file");
  }
  ASSIGN_OR_RETURN(ElfImage image,
                   ParseProgramHeaders(header, head.subspan(table.offset, table.size)));
  RETURN_IF_ERROR(ResolveTargets(image));
  uint64_t file_end = 0;
  uint64_t wanted = 0;
  for (const Target& target : shared_->targets) {
    file_end = target.file_offset + target.memory.size();
    wanted += target.memory.size();
  }
  if (file_end - wanted > kMaxPassedOverBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("ELF file has ", file_end - wanted, " bytes between its segments"));
  }

  const uint64_t limit = file_end + kMaxPassedOverBytes;
  uint64_t position = 0;
  if (n == chunk_bytes && decoder.AtBlock()) {
    Submit(position, std::move(buffer), n);
    RETURN_IF_ERROR(LoadBlocks(file, decoder, n, file_end));
    return image;
  }
  while (true) {
    const bool ended = n < chunk_bytes;
    if (position < file_end) {
      Submit(position, std::move(buffer), n);
      buffer = Mapping();
    }
    position += n;
    if (ended && position < file_end) {
      return Truncated();
    }
    if (ended || (position >= file_end && !decoder.HasChecksum())) break;
    if (position >= limit) {
      return absl::InvalidArgumentError(absl::StrCat(
          "payload goes on for more than ", kMaxPassedOverBytes, " bytes behind the kernel"));
    }
    if (buffer.size() == 0) {
      ASSIGN_OR_RETURN(buffer, TakeBuffer(*shared_, chunk_bytes));
    }
    ASSIGN_OR_RETURN(n, decoder.Read(buffer.bytes().first(chunk_bytes)));
  }
  return image;
}

absl::Status SegmentLoader::LoadBlocks(const BootFile& file, PayloadDecoder& decoder,
                                       uint64_t position, uint64_t file_end) {
  while (position < file_end) {
    ASSIGN_OR_RETURN(const std::optional<PayloadDecoder::Block> block, decoder.TakeBlock());
    if (!block) return Truncated();
    work_.Submit([shared = shared_, &file, block = *block, position, file_end] {
      return LoadBlock(*shared, file, block, position, file_end);
    });
    position += block->unpacked_bytes;
  }
  return absl::OkStatus();
}

absl::Status SegmentLoader::LoadBlock(Shared& shared, const BootFile& file,
                                      const PayloadDecoder::Block& block, uint64_t position,
                                      uint64_t file_end) {
  const size_t buffer_bytes = std::max(block.packed_bytes, block.unpacked_bytes);
  ASSIGN_OR_RETURN(Mapping packed_buffer, TakeBuffer(shared, buffer_bytes));
  const std::span<uint8_t> packed = packed_buffer.bytes().first(block.packed_bytes);
  RETURN_IF_ERROR(file.ReadAt(block.file_offset, packed));

  size_t n = 0;
  if (const std::span<uint8_t> in_place = InPlace(shared, position, block.unpacked_bytes);
      !in_place.empty()) {
    ASSIGN_OR_RETURN(n, block.unpack(packed, in_place));
  } else {
    ASSIGN_OR_RETURN(Mapping buffer, TakeBuffer(shared, buffer_bytes));
    const std::span<uint8_t> out = buffer.bytes().first(block.unpacked_bytes);
    ASSIGN_OR_RETURN(n, block.unpack(packed, out));
    Deposit(shared, position, out.first(n));
    GiveBack(shared, std::move(buffer));
  }
  GiveBack(shared, std::move(packed_buffer));
  if (position + n < std::min(position + block.unpacked_bytes, file_end)) {
    return absl::InvalidArgumentError(
        "ELF file is truncated, or packed in blocks of which a short one isn't the last");
  }
  return absl::OkStatus();
}

absl::Status SegmentLoader::ResolveTargets(const ElfImage& image) {
  for (const ElfSegment& segment : image.segments) {
    RETURN_IF_ERROR(CheckRangeIsRam(segment.memory, memory_.layout()));
    if (segment.file_bytes == 0) continue;
    ASSIGN_OR_RETURN(const std::span<uint8_t> target,
                     memory_.HostRange(segment.memory.base, segment.file_bytes));
    shared_->targets.push_back({segment.file_offset, segment.memory.base, target});
  }
  return absl::OkStatus();
}

absl::StatusOr<Mapping> SegmentLoader::TakeBuffer(Shared& shared, size_t bytes) {
  {
    const std::lock_guard lock(shared.mutex);
    const auto found = std::find_if(shared.free_buffers.begin(), shared.free_buffers.end(),
                                    [&](const Mapping& buffer) { return buffer.size() >= bytes; });
    if (found != shared.free_buffers.end()) {
      Mapping buffer = std::move(*found);
      shared.free_buffers.erase(found);
      return buffer;
    }
  }
  return AllocateLargeBuffer(bytes);
}

void SegmentLoader::GiveBack(Shared& shared, Mapping buffer) {
  const std::lock_guard lock(shared.mutex);
  shared.free_buffers.push_back(std::move(buffer));
}

void SegmentLoader::Submit(uint64_t file_offset, Mapping buffer, size_t bytes) {
  // std::function wants to be copyable.
  auto owned = std::make_shared<Mapping>(std::move(buffer));
  work_.Submit([shared = shared_, file_offset, owned = std::move(owned), bytes]() -> absl::Status {
    Deposit(*shared, file_offset, owned->bytes().first(bytes));
    GiveBack(*shared, std::move(*owned));
    return absl::OkStatus();
  });
}

void SegmentLoader::Deposit(const Shared& shared, uint64_t file_offset,
                            std::span<const uint8_t> bytes) {
  for (const Target& target : shared.targets) {
    const uint64_t begin = std::max(file_offset, target.file_offset);
    const uint64_t end =
        std::min(file_offset + bytes.size(), target.file_offset + target.memory.size());
    if (begin >= end) continue;
    const uint64_t offset = begin - target.file_offset;
    shared.huge_pages.Back(target.gpa + offset, end - begin);
    CopyNonZeroPages(target.memory.data() + offset,
                     bytes.subspan(begin - file_offset, end - begin));
  }
}

std::span<uint8_t> SegmentLoader::InPlace(const Shared& shared, uint64_t file_offset,
                                          size_t bytes) {
  for (const Target& target : shared.targets) {
    if (file_offset < target.file_offset) continue;
    const uint64_t offset = file_offset - target.file_offset;
    if (offset >= target.memory.size() || bytes > target.memory.size() - offset) continue;
    if (!shared.huge_pages.Back(target.gpa + offset, bytes)) return {};
    return target.memory.subspan(offset, bytes);
  }
  return {};
}

}  // namespace bothy::boot
