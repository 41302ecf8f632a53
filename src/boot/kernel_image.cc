#include "boot/kernel_image.h"

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boot/huge_page_backing.h"
#include "boot/initrd_placement.h"
#include "boot/low_memory_map.h"
#include "boot/memory_map.h"
#include "boot/parallel_work.h"
#include "boot/payload_decoder.h"
#include "boot/pvh.h"
#include "boot/segment_loader.h"
#include "boot/working_set.h"
#include "boot/zero_page.h"

namespace bothy::boot {
namespace {

using memory::AddressRange;
using memory::GuestMemory;
using memory::Layout;

constexpr std::string_view kKernelField = "direct_boot.kernel_path";
constexpr std::string_view kInitrdField = "direct_boot.initrd_path";
constexpr std::string_view kCommandLineField = "direct_boot.kernel_cmdline";

// COMMAND_LINE_SIZE of Linux on x86, less the NUL: a vmlinux doesn't say.
constexpr uint64_t kVmlinuxCommandLine = 2047;
// What a bzImage for x86-64 says in initrd_addr_max, for the vmlinux that doesn't.
constexpr uint64_t kVmlinuxInitrdMax = 0x7FFF'FFFF;
// boot.rst: the 64-bit entry point of the self-unpacking part.
constexpr uint64_t kEntry64Offset = 0x200;
// Notes of a kernel take a few hundred bytes.
constexpr uint64_t kMaxNoteBytes = 64 * memory::kKiB;
// Pieces that files are read in by several threads, and how many of those are worth their start.
constexpr uint64_t kReadBytes = 2 * memory::kMiB;
constexpr unsigned kMaxLoadThreads = 4;

}  // namespace

struct KernelImage::Loading {
  GuestMemory& memory;
  HugePageBacking huge_pages;
  ParallelWork work;  // last: its destructor waits for tasks, which use the others

  // Has `range` of `file` read to guest-physical address `gpa`.
  absl::Status Read(const BootFile& file, const FileRange& range, uint64_t gpa) {
    ASSIGN_OR_RETURN(const std::span<uint8_t> target, memory.HostRange(gpa, range.size));
    for (uint64_t done = 0; done < target.size(); done += kReadBytes) {
      const std::span<uint8_t> piece =
          target.subspan(done, std::min<uint64_t>(kReadBytes, target.size() - done));
      work.Submit([this, &file, offset = range.offset + done, at = gpa + done, piece] {
        huge_pages.Back(at, piece.size());
        return file.ReadAt(offset, piece);
      });
    }
    return absl::OkStatus();
  }
};

absl::StatusOr<Initrd> Initrd::Open(const std::string& path) {
  auto file = BootFile::Open(path);
  if (!file.ok()) return WithContext(file.status(), kInitrdField);
  if (file->size() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(kInitrdField), ": ", path, ": the file is empty"));
  }
  return Initrd(std::move(file).value());
}

absl::StatusOr<KernelImage> KernelImage::Open(const std::string& path) {
  auto file = BootFile::Open(path);
  if (!file.ok()) return WithContext(file.status(), kKernelField);
  KernelImage image(std::move(file).value());
  if (absl::Status status = image.ReadHeaders(); !status.ok()) {
    return WithContext(WithContext(status, path), kKernelField);
  }
  return image;
}

absl::Status KernelImage::ReadHeaders() {
  if (file_.size() == 0) return absl::InvalidArgumentError("the file is empty");
  std::array<uint8_t, kMaxSetupHeaderEnd> buffer;
  const std::span<uint8_t> head =
      std::span(buffer).first(std::min<uint64_t>(buffer.size(), file_.size()));
  RETURN_IF_ERROR(file_.ReadAt(0, head));
  // A bzImage first: with an EFI stub it begins with "MZ", else with code.
  if (LooksLikeBzImage(head)) {
    ASSIGN_OR_RETURN(bzimage_, ParseBzImage(head, file_.size()));
    return absl::OkStatus();
  }
  constexpr std::string_view kElfMagic =
      "\x7f"
      "ELF";
  if (!std::equal(kElfMagic.begin(), kElfMagic.end(), head.begin(),
                  head.begin() + static_cast<ptrdiff_t>(std::min(head.size(), size_t{4})))) {
    return absl::InvalidArgumentError("is neither a bzImage nor an ELF vmlinux");
  }
  return ReadElfHeaders();
}

absl::Status KernelImage::ReadElfHeaders() {
  std::array<uint8_t, kElfHeaderBytes> head;
  const size_t head_bytes = std::min<uint64_t>(head.size(), file_.size());
  RETURN_IF_ERROR(file_.ReadAt(0, std::span(head).first(head_bytes)));
  ASSIGN_OR_RETURN(const ElfHeader header, ParseElfHeader(std::span(head).first(head_bytes)));
  auto in_file = [&](const FileRange& range) {
    return range.offset <= file_.size() && range.size <= file_.size() - range.offset;
  };
  if (!in_file(header.program_headers)) {
    return absl::InvalidArgumentError("ELF file is truncated: its program headers lie behind it");
  }
  std::vector<uint8_t> table(header.program_headers.size);
  RETURN_IF_ERROR(file_.ReadAt(header.program_headers.offset, table));
  ASSIGN_OR_RETURN(ElfImage image, ParseProgramHeaders(header, table));
  for (const ElfSegment& segment : image.segments) {
    if (!in_file({segment.file_offset, segment.file_bytes})) {
      return absl::InvalidArgumentError("ELF file is truncated: a segment lies behind its end");
    }
  }
  for (const FileRange& range : image.notes) {
    if (!in_file(range) || range.size > kMaxNoteBytes) {
      return absl::InvalidArgumentError("ELF notes lie outside the file or are too long");
    }
    std::vector<uint8_t> notes(range.size);
    RETURN_IF_ERROR(file_.ReadAt(range.offset, notes));
    ASSIGN_OR_RETURN(const std::optional<uint32_t> entry, FindPvhEntry(notes));
    if (!entry.has_value()) continue;
    const bool inside =
        std::any_of(image.segments.begin(), image.segments.end(), [&](const ElfSegment& segment) {
          return *entry >= segment.memory.base && *entry < segment.memory.end();
        });
    if (!inside) {
      return absl::InvalidArgumentError(
          absl::StrFormat("PVH entry point 0x%x lies outside every segment", *entry));
    }
    pvh_entry_ = entry;
  }
  elf_ = std::move(image);
  return absl::OkStatus();
}

uint64_t KernelImage::max_command_line() const {
  const uint64_t kernel = bzimage_ ? bzimage_->header.cmdline_size : kVmlinuxCommandLine;
  return std::min(kernel, kCommandLineCapacity - 1);
}

absl::Status KernelImage::CheckCommandLine(std::string_view command_line) const {
  if (command_line.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("must not contain a NUL character");
  }
  if (command_line.size() > max_command_line()) {
    return absl::InvalidArgumentError(absl::StrCat(
        command_line.size(), " bytes are more than this kernel takes, ", max_command_line()));
  }
  return absl::OkStatus();
}

absl::Status KernelImage::Check(const LoadRequest& request, const Layout& layout) const {
  RETURN_IF_ERROR(WithContext(CheckCommandLine(request.command_line), kCommandLineField));
  std::vector<AddressRange> kernel;
  if (elf_) {
    for (const ElfSegment& segment : elf_->segments) kernel.push_back(segment.memory);
  } else if (request.unpack == Unpack::kGuest) {
    kernel.push_back({bzimage_->preferred_base, bzimage_->init_bytes});
  }
  uint64_t kernel_bytes = 0;
  for (const AddressRange& range : kernel) {
    kernel_bytes += range.size;
    if (absl::Status status = CheckRangeIsRam(range, layout); !status.ok()) {
      return WithContext(WithContext(status, file_.path()), kKernelField);
    }
  }
  const uint64_t usable = UsableRamBytes(layout);
  if (request.initrd != nullptr &&
      request.initrd->file().size() > usable - std::min(usable, kernel_bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(std::string(kInitrdField), ": ", request.initrd->file().path(), ": ",
                     request.initrd->file().size(), " bytes don't fit beside the kernel in ",
                     layout.ram_bytes / memory::kMiB, " MiB of RAM"));
  }
  return absl::OkStatus();
}

std::vector<AddressRange> KernelImage::WorkingSet(const LoadRequest& request,
                                                  const Layout& layout) const {
  const AddressRange span =
      elf_ ? elf_->span : AddressRange{bzimage_->preferred_base, bzimage_->init_bytes};
  return BootWorkingSet(span, request.initrd != nullptr ? request.initrd->file().size() : 0,
                        layout);
}

absl::StatusOr<KernelImage::Placement> KernelImage::LoadKernel(Unpack unpack,
                                                               Loading& loading) const {
  if (elf_) return LoadElf(loading);
  return unpack == Unpack::kGuest ? LoadSelfUnpacking(loading) : LoadPacked(loading);
}

absl::StatusOr<KernelImage::Placement> KernelImage::LoadPacked(Loading& loading) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<PayloadDecoder> decoder,
                   PayloadDecoder::Create(file_, bzimage_->payload.offset, bzimage_->payload.size));
  SegmentLoader loader(loading.memory, loading.huge_pages, loading.work);
  ASSIGN_OR_RETURN(const ElfImage image, loader.LoadStream(file_, *decoder));
  return Placement{.span = image.span, .entry = image.entry, .mode = EntryMode::kLong64};
}

absl::StatusOr<KernelImage::Placement> KernelImage::LoadSelfUnpacking(Loading& loading) const {
  const AddressRange range{bzimage_->preferred_base, bzimage_->init_bytes};
  RETURN_IF_ERROR(CheckRangeIsRam(range, loading.memory.layout()));
  RETURN_IF_ERROR(loading.Read(file_, bzimage_->protected_mode, range.base));
  return Placement{.span = range, .entry = range.base + kEntry64Offset, .mode = EntryMode::kLong64};
}

absl::StatusOr<KernelImage::Placement> KernelImage::LoadElf(Loading& loading) const {
  SegmentLoader loader(loading.memory, loading.huge_pages, loading.work);
  RETURN_IF_ERROR(loader.LoadFile(file_, *elf_));
  if (pvh_entry_) {
    return Placement{.span = elf_->span, .entry = *pvh_entry_, .mode = EntryMode::kProtected32};
  }
  return Placement{.span = elf_->span, .entry = elf_->entry, .mode = EntryMode::kLong64};
}

absl::StatusOr<AddressRange> KernelImage::LoadInitrd(const Initrd& initrd, const Placement& kernel,
                                                     Loading& loading) const {
  // A kernel that can be above 4 GiB itself takes its initrd from anywhere; Linux's PVH entry keeps
  // only 32 bits of the address.
  const uint64_t preferred =
      (bzimage_ ? bzimage_->header.initrd_addr_max : kVmlinuxInitrdMax) + uint64_t{1};
  const bool anywhere =
      !bzimage_ || (bzimage_->header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) != 0;
  const uint64_t limit = kernel.mode == EntryMode::kProtected32 ? memory::k4GiB
                         : anywhere                             ? UINT64_MAX
                                                                : preferred;
  const uint64_t bytes = initrd.file().size();
  const std::optional<uint64_t> gpa = PlaceInitrd(
      {.initrd_bytes = bytes, .kernel = kernel.span, .preferred_limit = preferred, .limit = limit},
      loading.memory.layout());
  if (!gpa) {
    return absl::ResourceExhaustedError(
        absl::StrCat(bytes, " bytes don't fit beside the kernel in ",
                     loading.memory.layout().ram_bytes / memory::kMiB, " MiB of RAM"));
  }
  RETURN_IF_ERROR(loading.Read(initrd.file(), {0, bytes}, *gpa));
  RETURN_IF_ERROR(loading.work.FinishSubmitted());
  return AddressRange{*gpa, bytes};
}

absl::StatusOr<hypervisor::EntryRegisters> KernelImage::Load(const LoadRequest& request,
                                                             GuestMemory& memory) const {
  RETURN_IF_ERROR(Check(request, memory.layout()));
  const std::vector<AddressRange> working_set =
      request.huge_pages ? WorkingSet(request, memory.layout()) : std::vector<AddressRange>();
  Loading loading{
      .memory = memory,
      .huge_pages = HugePageBacking(memory, working_set),
      .work = ParallelWork(std::min(std::thread::hardware_concurrency(), kMaxLoadThreads))};
  loading.huge_pages.BackAll(loading.work);
  auto placement = LoadKernel(request.unpack, loading);
  const absl::Status kernel_status =
      placement.ok() ? loading.work.FinishSubmitted() : placement.status();
  if (!kernel_status.ok()) {
    return WithContext(WithContext(kernel_status, file_.path()), kKernelField);
  }

  AddressRange initrd;
  if (request.initrd != nullptr) {
    auto loaded = LoadInitrd(*request.initrd, *placement, loading);
    if (!loaded.ok()) {
      return WithContext(WithContext(loaded.status(), request.initrd->file().path()), kInitrdField);
    }
    initrd = *loaded;
  }
  RETURN_IF_ERROR(loading.work.Finish());

  std::vector<uint8_t> command_line(request.command_line.begin(), request.command_line.end());
  command_line.push_back(0);
  RETURN_IF_ERROR(memory.Write(kCommandLine, command_line));

  const std::vector<MemoryMapEntry> map = BuildMemoryMap(memory.layout());
  ASSIGN_OR_RETURN(hypervisor::EntryRegisters registers, PrepareEntry(placement->mode, memory));
  registers.rip = placement->entry;
  if (placement->mode == EntryMode::kProtected32) {
    RETURN_IF_ERROR(WritePvhStartInfo({.memory_map = map,
                                       .command_line_gpa = kCommandLine,
                                       .initrd_gpa = initrd.base,
                                       .initrd_bytes = initrd.size,
                                       .rsdp_gpa = request.rsdp_gpa},
                                      memory));
    registers.rbx = kPvhStartInfo;
  } else {
    RETURN_IF_ERROR(memory.WriteObject(
        kZeroPage, BuildZeroPage({.header = bzimage_ ? bzimage_->header : setup_header{},
                                  .memory_map = map,
                                  .command_line_gpa = kCommandLine,
                                  .initrd_gpa = initrd.base,
                                  .initrd_bytes = initrd.size,
                                  .rsdp_gpa = request.rsdp_gpa})));
    registers.rsi = kZeroPage;
  }
  return registers;
}

}  // namespace bothy::boot
