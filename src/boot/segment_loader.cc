#include "boot/segment_loader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bothy::boot {
namespace {

// The decoder's output so far: `head`, which was needed to know where the rest goes, and behind it
// whatever the decoder gives next.
class Stream {
 public:
  Stream(PayloadDecoder& decoder, std::span<const uint8_t> head) : decoder_(decoder), head_(head) {}

  absl::Status SeekTo(uint64_t offset) {
    const uint64_t distance = offset - position_;
    if (distance > kMaxPassedOverBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("ELF file has a gap of ", distance, " bytes between segments"));
    }
    const uint64_t from_head = std::min<uint64_t>(distance, HeadLeft().size());
    position_ = offset;
    return distance > from_head ? decoder_.Skip(distance - from_head) : absl::OkStatus();
  }

  absl::Status Read(std::span<uint8_t> out) {
    const std::span<const uint8_t> head = HeadLeft().first(std::min(HeadLeft().size(), out.size()));
    if (!head.empty()) std::memcpy(out.data(), head.data(), head.size());
    position_ += out.size();
    out = out.subspan(head.size());
    ASSIGN_OR_RETURN(const size_t n, decoder_.Read(out));
    if (n < out.size()) {
      return absl::InvalidArgumentError("ELF file is truncated: a segment lies behind its end");
    }
    return absl::OkStatus();
  }

 private:
  [[nodiscard]] std::span<const uint8_t> HeadLeft() const {
    return head_.subspan(std::min<uint64_t>(position_, head_.size()));
  }

  PayloadDecoder& decoder_;
  std::span<const uint8_t> head_;
  uint64_t position_ = 0;
};

// The linker pads a segment to a large page.
constexpr uint64_t kMaxPaddingBytes = 2 * memory::kMiB;

// Whether `b`, which follows `a` in the file, is as far from it in memory, so that one read serves
// both. The bytes between them, padding of the linker, then land in RAM between them, which must
// belong to nobody.
bool Adjoin(const ElfSegment& a, const ElfSegment& b, const ElfImage& image) {
  if (a.file_bytes != a.memory.size || b.memory.base < a.memory.end() ||
      b.memory.base - a.memory.base != b.file_offset - a.file_offset) {
    return false;
  }
  const memory::AddressRange padding{a.memory.end(), b.memory.base - a.memory.end()};
  return padding.size <= kMaxPaddingBytes &&
         std::none_of(image.segments.begin(), image.segments.end(),
                      [&](const ElfSegment& other) { return other.memory.Overlaps(padding); });
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

absl::StatusOr<ElfImage> LoadElfStream(PayloadDecoder& decoder, memory::GuestMemory& memory) {
  // The linker puts program headers right behind the file header.
  std::array<uint8_t, 4096> buffer;
  ASSIGN_OR_RETURN(const size_t head_bytes, decoder.Read(buffer));
  const std::span<const uint8_t> head = std::span<const uint8_t>(buffer).first(head_bytes);
  ASSIGN_OR_RETURN(const ElfHeader header, ParseElfHeader(head));
  const FileRange& table = header.program_headers;
  if (table.offset > head.size() || table.size > head.size() - table.offset) {
    return absl::InvalidArgumentError("ELF program headers aren't at the beginning of the file");
  }
  ASSIGN_OR_RETURN(ElfImage image,
                   ParseProgramHeaders(header, head.subspan(table.offset, table.size)));
  for (const ElfSegment& segment : image.segments) {
    RETURN_IF_ERROR(CheckRangeIsRam(segment.memory, memory.layout()));
  }

  Stream stream(decoder, head);
  for (size_t i = 0; i < image.segments.size();) {
    const ElfSegment& first = image.segments[i];
    size_t last = i;
    while (last + 1 < image.segments.size() &&
           Adjoin(image.segments[last], image.segments[last + 1], image)) {
      ++last;
    }
    const uint64_t file_end = image.segments[last].file_end();
    i = last + 1;
    if (file_end == first.file_offset) continue;
    RETURN_IF_ERROR(stream.SeekTo(first.file_offset));
    auto target = memory.HostRange(first.memory.base, file_end - first.file_offset);
    RETURN_IF_ERROR(target.status());
    RETURN_IF_ERROR(stream.Read(*target));
  }
  RETURN_IF_ERROR(decoder.Finish(kMaxPassedOverBytes));
  return image;
}

}  // namespace bothy::boot
