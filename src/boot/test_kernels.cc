#include "boot/test_kernels.h"

#include <elf.h>
#include <lz4hc.h>
#include <lzma.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "boot/bzimage.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::boot {
namespace {

void Append(ByteVector& to, std::span<const uint8_t> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

template <typename T>
void AppendLe(ByteVector& to, T value) {
  to.resize(to.size() + sizeof value);
  StoreLe(to.data() + to.size() - sizeof value, value);
}

void PadTo(ByteVector& bytes, size_t multiple) {
  bytes.resize((bytes.size() + multiple - 1) / multiple * multiple);
}

ByteVector PackGzip(const ByteVector& bytes) {
  z_stream stream{};
  CHECK(::deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  ByteVector packed(::deflateBound(&stream, bytes.size()));
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

ByteVector PackXz(const ByteVector& bytes, bool x86_filter) {
  lzma_options_lzma options;
  CHECK(!::lzma_lzma_preset(&options, 0));
  options.dict_size = 32U << 20;  // as the kernel's build has it
  std::vector<lzma_filter> filters;
  if (x86_filter) filters.push_back({LZMA_FILTER_X86, nullptr});
  filters.push_back({LZMA_FILTER_LZMA2, &options});
  filters.push_back({LZMA_VLI_UNKNOWN, nullptr});
  ByteVector packed(::lzma_stream_buffer_bound(bytes.size()));
  size_t size = 0;
  CHECK(::lzma_stream_buffer_encode(filters.data(), LZMA_CHECK_CRC32, nullptr, bytes.data(),
                                    bytes.size(), packed.data(), &size, packed.size()) == LZMA_OK);
  packed.resize(size);
  return packed;
}

ByteVector PackZstd(const ByteVector& bytes) {
  ZSTD_CCtx* context = ::ZSTD_createCCtx();
  CHECK(context != nullptr);
  // The kernel's build packs from a pipe: with a checksum, without the size.
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1);
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  ByteVector packed(::ZSTD_compressBound(bytes.size()));
  const size_t size =
      ::ZSTD_compress2(context, packed.data(), packed.size(), bytes.data(), bytes.size());
  CHECK(!::ZSTD_isError(size));
  ::ZSTD_freeCCtx(context);
  packed.resize(size);
  return packed;
}

ByteVector PackLz4(const ByteVector& bytes, const std::vector<size_t>& first_blocks) {
  constexpr size_t kBlockBytes = size_t{8} << 20;
  ByteVector packed;
  AppendLe<uint32_t>(packed, 0x184C'2102);
  size_t index = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t wanted = index < first_blocks.size() ? first_blocks[index] : kBlockBytes;
    ++index;
    const auto n = static_cast<int>(std::min(wanted, bytes.size() - at));
    ByteVector block(static_cast<size_t>(::LZ4_compressBound(n)));
    const int size = ::LZ4_compress_HC(reinterpret_cast<const char*>(bytes.data() + at),
                                       reinterpret_cast<char*>(block.data()), n,
                                       static_cast<int>(block.size()), 1);
    CHECK(size > 0);
    AppendLe(packed, static_cast<uint32_t>(size));
    Append(packed, std::span(block).first(static_cast<size_t>(size)));
    at += static_cast<size_t>(n);
  }
  return packed;
}

}  // namespace

ByteVector PackLz4Blocks(const ByteVector& bytes, const std::vector<size_t>& first_blocks) {
  ByteVector packed = PackLz4(bytes, first_blocks);
  AppendLe(packed, static_cast<uint32_t>(bytes.size()));
  return packed;
}

ByteVector BuildElf(const TestElf& elf) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = elf.type;
  header.e_machine = elf.machine;
  header.e_version = EV_CURRENT;
  header.e_entry = elf.entry;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<uint16_t>(elf.segments.size() + elf.notes.size());

  std::vector<Elf64_Phdr> table;
  ByteVector body(sizeof header + header.e_phnum * sizeof(Elf64_Phdr));
  for (const TestSegment& segment : elf.segments) {
    PadTo(body, 16);
    Elf64_Phdr entry{};
    entry.p_type = PT_LOAD;
    entry.p_offset = segment.file_offset.value_or(body.size());
    entry.p_paddr = segment.gpa;
    entry.p_vaddr = 0xFFFF'FFFF'8000'0000 + segment.gpa;
    entry.p_filesz = segment.bytes.size();
    entry.p_memsz = segment.memory_bytes != 0 ? segment.memory_bytes : segment.bytes.size();
    if (!segment.file_offset) Append(body, segment.bytes);
    table.push_back(entry);
  }
  for (const ByteVector& note : elf.notes) {
    PadTo(body, 16);
    Elf64_Phdr entry{};
    entry.p_type = PT_NOTE;
    entry.p_offset = body.size();
    entry.p_filesz = note.size();
    entry.p_memsz = note.size();
    Append(body, note);
    table.push_back(entry);
  }
  std::memcpy(body.data(), &header, sizeof header);
  if (!table.empty()) {
    std::memcpy(body.data() + sizeof header, table.data(), table.size() * sizeof table[0]);
  }
  return body;
}

ByteVector BuildNote(const std::string& name, uint32_t type, const ByteVector& descriptor) {
  ByteVector note;
  AppendLe(note, static_cast<uint32_t>(name.size() + 1));
  AppendLe(note, static_cast<uint32_t>(descriptor.size()));
  AppendLe(note, type);
  note.insert(note.end(), name.begin(), name.end());
  note.push_back(0);
  PadTo(note, 4);
  Append(note, descriptor);
  PadTo(note, 4);
  return note;
}

ByteVector BuildPvhNote(uint32_t entry) {
  ByteVector descriptor;
  AppendLe(descriptor, entry);
  return BuildNote("Xen", 18, descriptor);
}

ByteVector Pack(const ByteVector& bytes, Packing packing) {
  ByteVector packed;
  switch (packing) {
    case Packing::kGzip:
      return PackGzip(bytes);  // ends with the size by itself
    case Packing::kStored:
      packed = bytes;
      break;
    case Packing::kXz:
      packed = PackXz(bytes, false);
      break;
    case Packing::kXzX86:
      packed = PackXz(bytes, true);
      break;
    case Packing::kZstd:
      packed = PackZstd(bytes);
      break;
    case Packing::kLz4:
      packed = PackLz4(bytes, {});
      break;
  }
  AppendLe(packed, static_cast<uint32_t>(bytes.size()));
  return packed;
}

ByteVector BuildBzImage(const ByteVector& payload,
                        const std::function<void(setup_header&)>& adjust) {
  ByteVector image(kTestSetupBytes + kTestPayloadOffset);
  Append(image, payload);
  PadTo(image, 16);

  setup_header header{};
  header.setup_sects = kTestSetupBytes / 512 - 1;
  header.syssize = static_cast<uint32_t>((image.size() - kTestSetupBytes) / 16);
  header.boot_flag = 0xAA55;
  header.jump = 0x6AEB;  // jmp to 0x26c
  header.header = kSetupHeaderMagic;
  header.version = 0x020F;
  header.loadflags = LOADED_HIGH;
  header.initrd_addr_max = 0x7FFF'FFFF;
  header.kernel_alignment = 0x20'0000;
  header.relocatable_kernel = 1;
  header.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
  header.cmdline_size = 255;
  header.payload_offset = kTestPayloadOffset;
  header.payload_length = static_cast<uint32_t>(payload.size());
  header.pref_address = 0x20'0000;
  header.init_size = 0x10'0000;
  if (adjust) adjust(header);
  std::memcpy(image.data() + 0x1f1, &header, sizeof header);
  return image;
}

ByteVector Scramble(size_t bytes, uint32_t seed) {
  ByteVector out(bytes);
  uint32_t state = seed * 2 + 1;
  for (size_t i = 0; i < bytes; ++i) {
    // Every fourth page stays zero, and nibbles rather than bytes, so that packing works.
    state = state * 1'664'525 + 1'013'904'223;
    if (i / 4096 % 4 != 1) out[i] = static_cast<uint8_t>(state >> 28);
  }
  return out;
}

TestFile::TestFile(std::span<const uint8_t> bytes) : fd_(::memfd_create("test", MFD_CLOEXEC)) {
  CHECK(fd_.valid());
  CHECK(::write(fd_.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
}

std::string TestFile::path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

void TestFile::Resize(uint64_t bytes) {
  CHECK(::ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0);
}

}  // namespace bothy::boot
