#include "boot/kernel_image.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "acpi/tables.h"
#include "boot/low_memory_map.h"
#include "boot/segment_loader.h"
#include "boot/test_kernels.h"
#include "support/endian.h"
#include "support/testing/test_folder.h"

namespace bothy::boot {
namespace {

using hypervisor::EntryRegisters;
using memory::GuestMemory;
using memory::kGiB;
using memory::kMiB;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint64_t kKernelBase = 2 * kMiB;

memory::Layout LayoutOf(uint64_t ram_mib, uint64_t high_mmio_base = 0) {
  return *memory::ComputeLayout({.ram_bytes = ram_mib * kMiB,
                                 .high_mmio_base_bytes = high_mmio_base,
                                 .physical_address_bits = 40});
}

std::unique_ptr<GuestMemory> MemoryOf(uint64_t ram_mib) {
  auto memory = GuestMemory::Create({.layout = LayoutOf(ram_mib)});
  EXPECT_TRUE(memory.ok()) << memory.status();
  return std::move(memory).value();
}

TestElf SmallElf() {
  return {.entry = kKernelBase + 0x10,
          .segments = {
              {.gpa = kKernelBase, .bytes = Scramble(10'000, 1)},
              {.gpa = kKernelBase + 0x4000, .bytes = Scramble(5'000, 2), .memory_bytes = 20'000}}};
}

void ExpectInRam(const GuestMemory& memory, uint64_t gpa, const ByteVector& expected) {
  ByteVector actual(expected.size());
  ASSERT_TRUE(memory.Read(gpa, actual).ok());
  const auto [a, e] = std::mismatch(actual.begin(), actual.end(), expected.begin());
  EXPECT_EQ(a, actual.end()) << "differs at byte " << a - actual.begin() << " of " << gpa;
}

void ExpectSegmentsInRam(const GuestMemory& memory, const TestElf& elf) {
  for (const TestSegment& segment : elf.segments) {
    ByteVector expected = segment.bytes;
    expected.resize(std::max<size_t>(segment.bytes.size(), segment.memory_bytes));
    ExpectInRam(memory, segment.gpa, expected);
  }
}

absl::StatusOr<EntryRegisters> OpenAndLoad(const ByteVector& file, GuestMemory& memory,
                                           const LoadRequest& request = {}) {
  const TestFile kernel(file);
  ASSIGN_OR_RETURN(const KernelImage image, KernelImage::Open(kernel.path()));
  return image.Load(request, memory);
}

// Expects `file` to be refused with `code` and a message that has the field and `text`.
void ExpectRefused(const ByteVector& file, absl::StatusCode code, const std::string& text,
                   uint64_t ram_mib = 16, const LoadRequest& request = {}) {
  const std::unique_ptr<GuestMemory> memory = MemoryOf(ram_mib);
  const absl::Status status = OpenAndLoad(file, *memory, request).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith("direct_boot.kernel_path: /"), HasSubstr(text)));
}

void ExpectInvalid(const ByteVector& file, const std::string& text) {
  ExpectRefused(file, absl::StatusCode::kInvalidArgument, text);
}

boot_params ZeroPage(const GuestMemory& memory) {
  return *memory.ReadObject<boot_params>(kZeroPage);
}

class PackingTest : public ::testing::TestWithParam<Packing> {};
INSTANTIATE_TEST_SUITE_P(All, PackingTest, ::testing::ValuesIn(kAllPackings));

TEST_P(PackingTest, PayloadIsUnpackedToWhereItsSegmentsRun) {
  const TestElf elf = SmallElf();
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(BuildBzImage(Pack(BuildElf(elf), GetParam())), *memory);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, elf.entry);
  EXPECT_EQ(entry->rsi, kZeroPage);
  ExpectSegmentsInRam(*memory, elf);
}

TEST_P(PackingTest, KernelsOfManyChunksArriveWhole) {
  // LZ4 has blocks of 8 MiB; the others are read half a MiB at a time.
  const size_t bytes = GetParam() == Packing::kLz4 ? 17 * kMiB + 12'345 : kMiB + 12'345;
  const TestElf elf{.entry = kKernelBase,
                    .segments = {{.gpa = kKernelBase, .bytes = Scramble(bytes, 3)},
                                 {.gpa = kKernelBase + 20 * kMiB + 0x123,
                                  .bytes = Scramble(kMiB + 77, 4),
                                  .memory_bytes = 2 * kMiB}}};
  ByteVector file = BuildElf(elf);
  const ByteVector relocations = Scramble(100'000, 5);
  file.insert(file.end(), relocations.begin(), relocations.end());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(32);
  auto entry = OpenAndLoad(BuildBzImage(Pack(file, GetParam())), *memory);
  ASSERT_TRUE(entry.ok()) << entry.status();
  ExpectSegmentsInRam(*memory, elf);
}

TEST_P(PackingTest, EveryTruncationOfThePayloadIsRefused) {
  const ByteVector payload = Pack(BuildElf(SmallElf()), GetParam());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  // Up to the last byte of a segment's data; checksums behind it are the next test's.
  for (size_t size = 1; size < payload.size() * 3 / 4; size += 1 + size / 64) {
    const absl::Status status =
        OpenAndLoad(BuildBzImage({payload.begin(), payload.begin() + static_cast<ptrdiff_t>(size)}),
                    *memory)
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << ": " << status;
  }
}

TEST_P(PackingTest, DamageIsNoticedOrHarmless) {
  const ByteVector payload = Pack(BuildElf(SmallElf()), GetParam());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const bool has_checksum = GetParam() != Packing::kStored && GetParam() != Packing::kLz4;
  size_t refused = 0;
  size_t tried = 0;
  // Not the size that the build appends, which we don't read.
  for (size_t at = 0; at + 16 < payload.size(); at += 37) {
    ByteVector damaged = payload;
    damaged[at] ^= 0x10;
    ++tried;
    auto entry = OpenAndLoad(BuildBzImage(damaged), *memory);
    if (entry.ok()) continue;
    ++refused;
    EXPECT_EQ(entry.status().code(), absl::StatusCode::kInvalidArgument) << entry.status();
  }
  if (has_checksum) {
    // A few bits of gzip's and zstd's headers mean nothing.
    EXPECT_GE(refused + 1, tried);
  }
}

TEST(KernelImageTest, ZeroPagesOfAKernelTakeNoRam) {
  TestElf elf = SmallElf();
  elf.segments = {{.gpa = kKernelBase, .bytes = ByteVector(4 * kMiB), .memory_bytes = 8 * kMiB}};
  elf.segments[0].bytes[0x10] = 1;
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  ASSERT_TRUE(OpenAndLoad(BuildBzImage(Pack(BuildElf(elf), Packing::kLz4)), *memory).ok());
  EXPECT_LT(memory->ResidentBytes(), 128 * memory::kKiB);
  ExpectSegmentsInRam(*memory, elf);
}

TEST(KernelImageTest, LoadsAgainAfterAReset) {
  const TestElf elf = SmallElf();
  const TestFile file(BuildBzImage(Pack(BuildElf(elf), Packing::kXz)));
  const TestFile initrd_file(Scramble(50'000, 9));
  auto image = KernelImage::Open(file.path());
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(image.ok() && initrd.ok());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const LoadRequest request{.initrd = &*initrd, .command_line = "quiet"};
  auto first = image->Load(request, *memory);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(memory->DiscardAll().ok());
  auto second = image->Load(request, *memory);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->rip, first->rip);
  ExpectSegmentsInRam(*memory, elf);
  ExpectInRam(*memory, ZeroPage(*memory).hdr.ramdisk_image, Scramble(50'000, 9));
}

// Of four LZ4 blocks, and large enough to be taken for Linux.
TestElf LargeElf() {
  return {.entry = kKernelBase,
          .segments = {{.gpa = kKernelBase, .bytes = Scramble(25 * kMiB, 3)},
                       {.gpa = kKernelBase + 26 * kMiB + 0x123,
                        .bytes = Scramble(kMiB + 77, 4),
                        .memory_bytes = 2 * kMiB}}};
}

void SetLargeInitSize(setup_header& header) { header.init_size = 30 * kMiB; }

TEST(KernelImageTest, HugePagesChangeNothingThatTheGuestSees) {
  const TestElf elf = LargeElf();
  const ByteVector initrd_bytes = Scramble(3 * kMiB + 321, 6);
  const TestFile initrd_file(initrd_bytes);
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(initrd.ok());
  for (const Packing packing : {Packing::kLz4, Packing::kZstd}) {
    const std::unique_ptr<GuestMemory> memory = MemoryOf(96);
    auto entry = OpenAndLoad(BuildBzImage(Pack(BuildElf(elf), packing), SetLargeInitSize), *memory,
                             {.initrd = &*initrd, .huge_pages = true});
    ASSERT_TRUE(entry.ok()) << entry.status();
    EXPECT_EQ(entry->rip, elf.entry);
    ExpectSegmentsInRam(*memory, elf);
    ExpectInRam(*memory, ZeroPage(*memory).hdr.ramdisk_image, initrd_bytes);
  }
}

TEST(KernelImageTest, Lz4BlocksMayBeginShort) {
  // The first 8 MiB, which are read in order, may come in any blocks.
  const TestElf elf = LargeElf();
  for (const std::vector<size_t>& blocks :
       {std::vector<size_t>{3 * kMiB, 5 * kMiB}, {5 * kMiB, 7 * kMiB}, {kMiB}}) {
    const std::unique_ptr<GuestMemory> memory = MemoryOf(64);
    auto entry =
        OpenAndLoad(BuildBzImage(PackLz4Blocks(BuildElf(elf), blocks), SetLargeInitSize), *memory);
    ASSERT_TRUE(entry.ok()) << entry.status();
    ExpectSegmentsInRam(*memory, elf);
  }
}

TEST(KernelImageTest, AShortLz4BlockBetweenFullOnesIsRefused) {
  ExpectRefused(
      BuildBzImage(PackLz4Blocks(BuildElf(LargeElf()), {8 * kMiB, 5 * kMiB}), SetLargeInitSize),
      absl::StatusCode::kInvalidArgument, "a short one", 64);
}

TEST(KernelImageTest, TruncationBetweenLz4BlocksIsRefused) {
  const ByteVector payload = Pack(BuildElf(LargeElf()), Packing::kLz4);
  for (const bool huge_pages : {false, true}) {
    for (const size_t part : {3U, 4U, 6U, 7U}) {
      const auto size = static_cast<ptrdiff_t>(payload.size() * part / 8);
      ExpectRefused(BuildBzImage({payload.begin(), payload.begin() + size}, SetLargeInitSize),
                    absl::StatusCode::kInvalidArgument, "truncated", 64,
                    {.huge_pages = huge_pages});
    }
    // A whole block is missing.
    size_t block = 4;
    block += 4 + LoadLe<uint32_t>(payload.data() + block);
    block += 4 + LoadLe<uint32_t>(payload.data() + block);
    ByteVector cut(payload.begin(), payload.begin() + static_cast<ptrdiff_t>(block));
    cut.resize(cut.size() + 4);
    ExpectRefused(BuildBzImage(cut, SetLargeInitSize), absl::StatusCode::kInvalidArgument,
                  "truncated", 64, {.huge_pages = huge_pages});
  }
}

TEST(KernelImageTest, GuestUnpacksWhereItPrefers) {
  const ByteVector file = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip));
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(file, *memory, {.unpack = Unpack::kGuest});
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, kKernelBase + 0x200);
  ExpectInRam(*memory, kKernelBase, {file.begin() + kTestSetupBytes, file.end()});
}

TEST(KernelImageTest, GuestNeedsRoomToUnpack) {
  const ByteVector file = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip),
                                       [](setup_header& header) { header.init_size = 64 * kMiB; });
  ExpectRefused(file, absl::StatusCode::kResourceExhausted, "the guest has only 16 MiB", 16,
                {.unpack = Unpack::kGuest});
  const std::unique_ptr<GuestMemory> memory = MemoryOf(128);
  EXPECT_TRUE(OpenAndLoad(file, *memory, {.unpack = Unpack::kGuest}).ok());
}

TEST(KernelImageTest, VmlinuxEntersAtItsElfEntryInLongMode) {
  const TestElf elf = SmallElf();
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(BuildElf(elf), *memory);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, elf.entry);
  EXPECT_EQ(entry->rsi, kZeroPage);
  EXPECT_TRUE(entry->cs.long_mode);
  ExpectSegmentsInRam(*memory, elf);
  // What a bzImage's header would have said.
  const boot_params params = ZeroPage(*memory);
  EXPECT_EQ(params.hdr.header, kSetupHeaderMagic);
  EXPECT_EQ(params.hdr.boot_flag, 0xAA55);
  EXPECT_EQ(params.hdr.type_of_loader, 0xFF);
}

TEST(KernelImageTest, VmlinuxWithAPvhNoteEntersThereIn32Bits) {
  TestElf elf = SmallElf();
  elf.notes = {BuildNote("Linux", 18, {1, 2, 3, 4}), BuildPvhNote(kKernelBase + 0x100)};
  const TestFile initrd_file(Scramble(5'000, 9));
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(initrd.ok());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry =
      OpenAndLoad(BuildElf(elf), *memory,
                  {.initrd = &*initrd, .command_line = "console=ttyS0", .rsdp_gpa = 0xE'0000});
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, kKernelBase + 0x100);
  EXPECT_EQ(entry->rbx, kPvhStartInfo);
  EXPECT_EQ(entry->cr0 & 1U << 31, 0U);
  EXPECT_EQ(entry->cr0 & 1U, 1U);
  EXPECT_FALSE(entry->cs.long_mode);
  EXPECT_TRUE(entry->cs.default_32);

  ByteVector info(56);
  ASSERT_TRUE(memory->Read(kPvhStartInfo, info).ok());
  EXPECT_EQ(LoadLe<uint32_t>(info.data()), 0x336E'C578U);
  EXPECT_EQ(LoadLe<uint32_t>(info.data() + 4), 1U);
  EXPECT_EQ(LoadLe<uint32_t>(info.data() + 12), 1U);  // modules
  EXPECT_EQ(LoadLe<uint64_t>(info.data() + 24), kCommandLine);
  EXPECT_EQ(LoadLe<uint64_t>(info.data() + 32), 0xE'0000U);
  const auto module = LoadLe<uint64_t>(info.data() + 16);
  const auto initrd_gpa = memory->ReadObject<uint64_t>(module);
  ExpectInRam(*memory, *initrd_gpa, Scramble(5'000, 9));
  EXPECT_EQ(*memory->ReadObject<uint64_t>(module + 8), 5'000U);
  const auto map = LoadLe<uint64_t>(info.data() + 40);
  ASSERT_EQ(LoadLe<uint32_t>(info.data() + 48), 5U);
  const uint64_t fourth = map + 72;  // entries of 24 bytes
  EXPECT_EQ(*memory->ReadObject<uint64_t>(fourth), kMiB);
  EXPECT_EQ(*memory->ReadObject<uint64_t>(fourth + 8), 15 * kMiB);
  EXPECT_EQ(*memory->ReadObject<uint32_t>(fourth + 16), 1U);
}

TEST(KernelImageTest, EntryStateIsWhatTheBootProtocolAsksFor) {
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(BuildElf(SmallElf()), *memory);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->cs.selector, 0x10);    // __BOOT_CS
  EXPECT_EQ(entry->data.selector, 0x18);  // __BOOT_DS
  EXPECT_EQ(*memory->ReadObject<uint64_t>(entry->gdt_base + 0x10), 0x00AF'9B00'0000'FFFFU);
  EXPECT_EQ(*memory->ReadObject<uint64_t>(entry->gdt_base + 0x18), 0x00CF'9300'0000'FFFFU);
  EXPECT_EQ(entry->rflags, 2U);
  EXPECT_EQ(entry->efer, 0x500U);
  EXPECT_EQ(entry->cr4, 0x20U);

  // Walks the page tables for a few addresses.
  for (const uint64_t address :
       {uint64_t{0}, kKernelBase + 0x123, uint64_t{0xBFFF'FFFF}, uint64_t{0xFFFF'F000}}) {
    const auto pml4e = *memory->ReadObject<uint64_t>(entry->cr3 + (address >> 39 & 511) * 8);
    ASSERT_EQ(pml4e & 1, 1U);
    const auto pdpte =
        *memory->ReadObject<uint64_t>((pml4e & ~0xFFFULL) + (address >> 30 & 511) * 8);
    ASSERT_EQ(pdpte & 1, 1U);
    const auto pde = *memory->ReadObject<uint64_t>((pdpte & ~0xFFFULL) + (address >> 21 & 511) * 8);
    EXPECT_EQ(pde & 0x83, 0x83U);
    EXPECT_EQ(pde & ~0x1F'FFFFULL, address & ~0x1F'FFFFULL);
  }
}

TEST(KernelImageTest, ZeroPageHasTheKernelsHeaderAndOurData) {
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip),
                                        [](setup_header& header) {
                                          header.setup_data = 0x1234;  // a chain of nobody's
                                        }),
                           *memory, {.command_line = "console=ttyS0", .rsdp_gpa = 0xE'0000});
  ASSERT_TRUE(entry.ok()) << entry.status();
  const boot_params params = ZeroPage(*memory);
  EXPECT_EQ(params.hdr.version, 0x020F);
  EXPECT_EQ(params.hdr.type_of_loader, 0xFF);
  EXPECT_EQ(params.hdr.setup_data, 0U);
  EXPECT_EQ(params.sentinel, 0);
  EXPECT_EQ(params.acpi_rsdp_addr, 0xE'0000U);
  EXPECT_EQ(params.hdr.cmd_line_ptr, kCommandLine);
  EXPECT_EQ(params.hdr.ramdisk_size, 0U);
  EXPECT_EQ(params.screen_info.orig_video_isVGA, 0);
  const std::string line = "console=ttyS0";
  ByteVector expected(line.begin(), line.end());
  expected.push_back(0);
  ExpectInRam(*memory, kCommandLine, expected);
}

using E820 = std::tuple<uint64_t, uint64_t, uint32_t>;

std::vector<E820> E820Of(const boot_params& params) {
  std::vector<E820> map;
  for (int i = 0; i < params.e820_entries; ++i) {
    const boot_e820_entry entry = params.e820_table[i];
    map.emplace_back(entry.addr, entry.size, entry.type);
  }
  return map;
}

TEST(KernelImageTest, MemoryMapLeavesOutHolesAndReservesTables) {
  auto memory = GuestMemory::Create({.layout = LayoutOf(6144)});
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE(OpenAndLoad(BuildElf(SmallElf()), **memory).ok());
  EXPECT_THAT(E820Of(ZeroPage(**memory)),
              ::testing::ElementsAre(E820{0, 0x9'FC00, 1}, E820{0x9'FC00, 0x400, 2},
                                     E820{0xE'0000, 0x2'0000, 2}, E820{kMiB, 3 * kGiB - kMiB, 1},
                                     E820{memory::kEcamBase, memory::kEcamBusSize, 2},
                                     E820{4 * kGiB, 3 * kGiB, 1}));
}

TEST(KernelImageTest, CommandLineUpToTheKernelsLimitFits) {
  const ByteVector file = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip));
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const std::string longest(255, 'x');
  ASSERT_TRUE(OpenAndLoad(file, *memory, {.command_line = longest}).ok());
  const std::string longer(256, 'x');
  const absl::Status status = OpenAndLoad(file, *memory, {.command_line = longer}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "direct_boot.kernel_cmdline: 256 bytes are more than this kernel takes, 255");
}

TEST(KernelImageTest, VmlinuxTakes2047BytesOfCommandLine) {
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const std::string longest(2047, 'x');
  EXPECT_TRUE(OpenAndLoad(BuildElf(SmallElf()), *memory, {.command_line = longest}).ok());
  const std::string longer(2048, 'x');
  EXPECT_EQ(OpenAndLoad(BuildElf(SmallElf()), *memory, {.command_line = longer}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(KernelImageTest, CommandLineLimitOfAHostileHeaderIsOurs) {
  const ByteVector file = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip),
                                       [](setup_header& header) { header.cmdline_size = ~0U; });
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const std::string line(kCommandLineCapacity, 'x');
  EXPECT_EQ(OpenAndLoad(file, *memory, {.command_line = line}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(OpenAndLoad(file, *memory, {.command_line = std::string_view(line).substr(1)}).ok());
}

TEST(KernelImageTest, CommandLineWithANulIsRefused) {
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const absl::Status status =
      OpenAndLoad(BuildElf(SmallElf()), *memory, {.command_line = std::string_view("a\0b", 3)})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("direct_boot.kernel_cmdline: "));
}

// Files that are no kernels, or not whole.

TEST(KernelImageTest, EmptyFileIsRefused) { ExpectInvalid({}, "the file is empty"); }

TEST(KernelImageTest, RandomBytesAreRefused) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    ExpectInvalid(Scramble(10'000, seed), "neither a bzImage nor an ELF vmlinux");
  }
}

TEST(KernelImageTest, BzImageTruncatedAnywhereIsRefused) {
  const ByteVector file = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip));
  for (size_t size = 0; size < file.size(); size += size < 0x500 ? 1 : 97) {
    const TestFile cut({file.data(), size});
    EXPECT_EQ(KernelImage::Open(cut.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << size;
  }
}

TEST(KernelImageTest, VmlinuxTruncatedAnywhereIsRefused) {
  TestElf elf = SmallElf();
  elf.notes = {BuildPvhNote(kKernelBase)};
  const ByteVector file = BuildElf(elf);
  for (size_t size = 0; size < file.size(); size += size < 0x200 ? 1 : 97) {
    const TestFile cut({file.data(), size});
    EXPECT_EQ(KernelImage::Open(cut.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << size;
  }
}

TEST(KernelImageTest, AnyByteOfTheHeadersMayBeWrong) {
  // Nothing to expect but that nothing crashes and that errors are of the kinds we promise.
  TestElf elf = SmallElf();
  elf.notes = {BuildPvhNote(kKernelBase)};
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const ByteVector vmlinux = BuildElf(elf);
  const ByteVector bzimage = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kStored));
  auto try_bits = [&](const ByteVector& file, size_t first, size_t last) {
    for (size_t at = first; at < last; ++at) {
      for (const uint8_t bit : {0, 2, 7}) {
        ByteVector damaged = file;
        damaged[at] ^= static_cast<uint8_t>(1U << bit);
        const absl::StatusCode code = OpenAndLoad(damaged, *memory).status().code();
        EXPECT_THAT(code,
                    ::testing::AnyOf(absl::StatusCode::kOk, absl::StatusCode::kInvalidArgument,
                                     absl::StatusCode::kResourceExhausted))
            << at << "." << int{bit};
      }
    }
  };
  try_bits(vmlinux, 0, 64 + 3 * 56);
  try_bits(bzimage, 0x1f1, 0x270);
  try_bits(bzimage, kTestSetupBytes + kTestPayloadOffset,
           kTestSetupBytes + kTestPayloadOffset + 64 + 112);
}

TEST(KernelImageTest, OtherArchitecturesAreRefused) {
  TestElf elf = SmallElf();
  elf.machine = 183;  // AArch64
  ExpectInvalid(BuildElf(elf), "another architecture (machine 183");
  ExpectInvalid(BuildBzImage(Pack(BuildElf(elf), Packing::kGzip)), "another architecture");
  ByteVector elf32 = BuildElf(SmallElf());
  elf32[4] = 1;
  ExpectInvalid(elf32, "isn't 64-bit");
}

TEST(KernelImageTest, ObjectFilesAreRefused) {
  TestElf elf = SmallElf();
  elf.type = 1;
  ExpectInvalid(BuildElf(elf), "isn't an executable");
}

TEST(KernelImageTest, BzImagesWeCantEnterAreRefused) {
  const ByteVector payload = Pack(BuildElf(SmallElf()), Packing::kGzip);
  struct Case {
    std::function<void(setup_header&)> adjust;
    std::string text;
  };
  for (const Case& c : {
           Case{[](setup_header& h) { h.version = 0x020B; }, "2.12 is the oldest"},
           Case{[](setup_header& h) { h.xloadflags = 0; }, "no 64-bit entry point"},
           Case{[](setup_header& h) { h.loadflags = 0; }, "zImage"},
           Case{[](setup_header& h) { h.boot_flag = 0; }, "boot flag"},
           Case{[](setup_header& h) { h.jump = 0x10EB; }, "shorter than its version"},
           Case{[](setup_header& h) { h.jump = 0xFFEB; }, "header is truncated"},
           Case{[](setup_header& h) { h.setup_sects = 200; }, "truncated"},
           Case{[](setup_header& h) { h.syssize = ~0U; }, "truncated"},
           Case{[](setup_header& h) { h.syssize = 1; }, "no room for its 64-bit entry"},
           Case{[](setup_header& h) { h.payload_offset = ~0U; }, "payload lies outside"},
           Case{[](setup_header& h) { h.payload_length = ~0U; }, "payload lies outside"},
           Case{[](setup_header& h) { h.payload_length = 0; }, "payload lies outside"},
           Case{[](setup_header& h) { h.pref_address = 0; }, "prefers address"},
           Case{[](setup_header& h) { h.pref_address = ~0ULL; }, "prefers address"},
       }) {
    ExpectInvalid(BuildBzImage(payload, c.adjust), c.text);
  }
}

TEST(KernelImageTest, UnknownPackingsAreNamed) {
  ExpectInvalid(BuildBzImage({'B', 'Z', 'h', '9', 1, 2, 3, 4}), "packed with bzip2");
  ExpectInvalid(BuildBzImage({0x5d, 0, 0, 0x80, 0, 1, 2, 3}), "packed with lzma,");
  ExpectInvalid(BuildBzImage({0x89, 'L', 'Z', 'O', 0, 1, 2, 3}), "packed with lzo");
  ExpectInvalid(BuildBzImage({1, 2, 3, 4, 5, 6, 7, 8}), "unknown format");
  ExpectInvalid(BuildBzImage({1}), "unknown format");
}

TEST(KernelImageTest, PayloadThatIsNoElfIsRefused) {
  for (const Packing packing : {Packing::kGzip, Packing::kXz, Packing::kZstd, Packing::kLz4}) {
    ExpectInvalid(BuildBzImage(Pack(Scramble(10'000, 8), packing)), "isn't an ELF file");
    ExpectInvalid(BuildBzImage(Pack({1, 2, 3}, packing)), "ELF header is truncated");
  }
}

TEST(KernelImageTest, SegmentsMustLieAboveTheBootData) {
  for (const uint64_t gpa : {uint64_t{0}, kZeroPage, kMiB - 1}) {
    TestElf elf = SmallElf();
    elf.segments[0].gpa = gpa;
    ExpectInvalid(BuildElf(elf), "below 1 MiB");
    ExpectInvalid(BuildBzImage(Pack(BuildElf(elf), Packing::kXz)), "below 1 MiB");
  }
}

TEST(KernelImageTest, SegmentsMustNotOverlap) {
  TestElf elf = SmallElf();
  elf.segments[1].gpa = kKernelBase + 9'999;
  ExpectInvalid(BuildElf(elf), "overlap in memory");
  elf = SmallElf();
  elf.segments[1].file_offset = 0x200;
  ExpectInvalid(BuildElf(elf), "share bytes of the file");
}

TEST(KernelImageTest, SegmentsMustNotWrapAround) {
  TestElf elf = SmallElf();
  elf.segments[0].memory_bytes = UINT64_MAX - kMiB;
  ExpectInvalid(BuildElf(elf), "wraps around");
  elf = SmallElf();
  elf.segments[0].file_offset = UINT64_MAX - 5;
  ExpectInvalid(BuildElf(elf), "wraps around");
}

TEST(KernelImageTest, SegmentsWithMoreFileThanMemoryAreRefused) {
  TestElf elf = SmallElf();
  elf.segments[0].memory_bytes = 100;
  ExpectInvalid(BuildElf(elf), "more bytes in the file than in memory");
}

TEST(KernelImageTest, SegmentsWhereDevicesAreAreRefused) {
  for (const uint64_t gpa : {uint64_t{3 * kGiB}, memory::kEcamBase, uint64_t{4 * kGiB} - 4096,
                             LayoutOf(16).pci_mmio64.base}) {
    TestElf elf = SmallElf();
    elf.segments[1].gpa = gpa;
    ExpectInvalid(BuildElf(elf), "where devices are");
  }
}

TEST(KernelImageTest, KernelLargerThanRamExhaustsIt) {
  TestElf elf = SmallElf();
  elf.segments[1].memory_bytes = 64 * kMiB;
  const std::string text = "the guest has only 16 MiB";
  ExpectRefused(BuildElf(elf), absl::StatusCode::kResourceExhausted, text);
  ExpectRefused(BuildBzImage(Pack(BuildElf(elf), Packing::kZstd)),
                absl::StatusCode::kResourceExhausted, text);
  ExpectRefused(BuildElf(SmallElf()), absl::StatusCode::kResourceExhausted,
                "the guest has only 1 MiB", 1);
}

TEST(KernelImageTest, EntryPointsMustLieInTheKernel) {
  TestElf elf = SmallElf();
  elf.entry = 0xFFFF'FFFF'8100'0000;
  ExpectInvalid(BuildElf(elf), "entry point 0xffffffff81000000 lies outside");
  elf = SmallElf();
  elf.notes = {BuildPvhNote(0x1000)};
  ExpectInvalid(BuildElf(elf), "PVH entry point 0x1000 lies outside");
}

TEST(KernelImageTest, MalformedNotesAreRefused) {
  TestElf elf = SmallElf();
  elf.notes = {BuildNote("Xen", 18, {1, 2})};
  ExpectInvalid(BuildElf(elf), "no 32-bit PVH entry point");
  elf.notes = {BuildNote("Xen", 18, {0, 0, 0x20, 0, 1, 0, 0, 0})};
  ExpectInvalid(BuildElf(elf), "no 32-bit PVH entry point");
  ByteVector truncated = BuildPvhNote(kKernelBase);
  StoreLe(truncated.data() + 4, uint32_t{100});
  elf.notes = {truncated};
  ExpectInvalid(BuildElf(elf), "note is truncated");
  StoreLe(truncated.data(), UINT32_MAX);
  elf.notes = {truncated};
  ExpectInvalid(BuildElf(elf), "note is truncated");
}

TEST(KernelImageTest, PvhEntryOfEightBytesWorks) {
  TestElf elf = SmallElf();
  elf.notes = {BuildNote("Xen", 18, {0, 0, 0x20, 0, 0, 0, 0, 0})};
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  auto entry = OpenAndLoad(BuildElf(elf), *memory);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, 0x20'0000U);
}

TEST(KernelImageTest, ElfWithNothingToLoadIsRefused) {
  ExpectInvalid(BuildElf({.entry = kKernelBase, .segments = {}, .notes = {BuildPvhNote(1)}}),
                "nothing to load");
}

TEST(KernelImageTest, PayloadThatUnpacksWithoutEndIsCutShort) {
  // More zeroes behind the kernel than it could have use for, in a few KiB.
  ByteVector file = BuildElf(SmallElf());
  file.resize(file.size() + 2 * kMaxPassedOverBytes);
  const ByteVector behind = BuildBzImage(Pack(file, Packing::kZstd));
  ASSERT_LT(behind.size(), 100'000U);
  ExpectInvalid(behind, "goes on for more than");

  // And between two segments.
  TestElf elf = SmallElf();
  elf.segments[1].file_offset = file.size();
  file = BuildElf(elf);
  file.resize(file.size() + 3 * kMaxPassedOverBytes);
  ExpectInvalid(BuildBzImage(Pack(file, Packing::kZstd)), "between its segments");
}

TEST(KernelImageTest, FileThatShrinksAfterItWasOpenedIsRefused) {
  for (const ByteVector& file :
       {BuildElf(SmallElf()), BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kXz))}) {
    TestFile kernel(file);
    auto image = KernelImage::Open(kernel.path());
    ASSERT_TRUE(image.ok());
    kernel.Resize(file.size() / 2);
    const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
    const absl::Status status = image->Load({}, *memory).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file ends at byte"));
  }
}

// Initrds.

class InitrdTest : public ::testing::Test {
 protected:
  // Where an initrd of `bytes` zeroes lands in a guest with `layout`, or why it doesn't.
  static absl::StatusOr<uint64_t> Place(uint64_t bytes, const memory::Layout& layout,
                                        const std::function<void(setup_header&)>& adjust) {
    TestFile initrd_file({});
    initrd_file.Resize(bytes);
    ASSIGN_OR_RETURN(const Initrd initrd, Initrd::Open(initrd_file.path()));
    ASSIGN_OR_RETURN(const std::unique_ptr<GuestMemory> memory,
                     GuestMemory::Create({.layout = layout}));
    const ByteVector kernel = BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip), adjust);
    RETURN_IF_ERROR(OpenAndLoad(kernel, *memory, {.initrd = &initrd}).status());
    const boot_params params = ZeroPage(*memory);
    EXPECT_EQ(params.hdr.ramdisk_size | uint64_t{params.ext_ramdisk_size} << 32, bytes);
    return params.hdr.ramdisk_image | uint64_t{params.ext_ramdisk_image} << 32;
  }
};

TEST_F(InitrdTest, LiesAtTheTopOfLowRam) {
  auto gpa = Place(5'000, LayoutOf(64), nullptr);
  ASSERT_TRUE(gpa.ok()) << gpa.status();
  EXPECT_EQ(*gpa, 64 * kMiB - 8192);
}

TEST_F(InitrdTest, StaysBelowTheKernelsLimit) {
  auto gpa = Place(5'000, LayoutOf(64),
                   [](setup_header& header) { header.initrd_addr_max = 32 * kMiB - 1; });
  ASSERT_TRUE(gpa.ok()) << gpa.status();
  EXPECT_EQ(*gpa, 32 * kMiB - 8192);
}

TEST_F(InitrdTest, FillsWhatTheKernelLeaves) {
  // From 1 MiB to the kernel at 2 MiB, and from its end, 36 KiB behind that.
  EXPECT_TRUE(Place(5 * kMiB, LayoutOf(8), nullptr).ok());
  const absl::Status status = Place(6 * kMiB, LayoutOf(8), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith("direct_boot.initrd_path: /"), HasSubstr("8 MiB of RAM")));
}

TEST_F(InitrdTest, LargerThanRamIsRefusedBeforeAnythingIsLoaded) {
  TestFile initrd_file({});
  initrd_file.Resize(17 * kMiB);
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(initrd.ok());
  const TestFile kernel(BuildBzImage(Pack(BuildElf(SmallElf()), Packing::kGzip)));
  auto image = KernelImage::Open(kernel.path());
  ASSERT_TRUE(image.ok());
  const absl::Status status = image->Check({.initrd = &*initrd}, LayoutOf(16));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), StartsWith("direct_boot.initrd_path: /"));
  EXPECT_TRUE(image->Check({.initrd = &*initrd}, LayoutOf(64)).ok());
}

TEST_F(InitrdTest, ArrivesWhole) {
  const ByteVector bytes = Scramble(5 * kMiB + 321, 6);
  const TestFile initrd_file(bytes);
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(initrd.ok());
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  ASSERT_TRUE(OpenAndLoad(BuildElf(SmallElf()), *memory, {.initrd = &*initrd}).ok());
  ExpectInRam(*memory, ZeroPage(*memory).hdr.ramdisk_image, bytes);
}

TEST_F(InitrdTest, ShrinkingAfterItWasOpenedIsRefused) {
  TestFile initrd_file(Scramble(100'000, 6));
  auto initrd = Initrd::Open(initrd_file.path());
  ASSERT_TRUE(initrd.ok());
  initrd_file.Resize(50'000);
  const std::unique_ptr<GuestMemory> memory = MemoryOf(16);
  const absl::Status status =
      OpenAndLoad(BuildElf(SmallElf()), *memory, {.initrd = &*initrd}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("direct_boot.initrd_path: /"));
}

// Paths.

class PathTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string In(const std::string& name) const { return folder_ / name; }

  static void ExpectBoth(const std::string& path, absl::StatusCode code) {
    const absl::Status kernel = KernelImage::Open(path).status();
    EXPECT_EQ(kernel.code(), code) << kernel;
    EXPECT_THAT(std::string(kernel.message()), StartsWith("direct_boot.kernel_path: " + path));
    const absl::Status initrd = Initrd::Open(path).status();
    EXPECT_EQ(initrd.code(), code) << initrd;
    EXPECT_THAT(std::string(initrd.message()), StartsWith("direct_boot.initrd_path: " + path));
  }

  const TestFolder folder_;
};

TEST_F(PathTest, MissingFilesAreNotFound) {
  ExpectBoth(In("none"), absl::StatusCode::kNotFound);
  ExpectBoth(In("none/inner"), absl::StatusCode::kNotFound);
}

TEST_F(PathTest, FoldersFifosAndDevicesAreRefusedWithoutWaiting) {
  ExpectBoth(folder_.path(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo(In("fifo").c_str(), 0600), 0);
  ExpectBoth(In("fifo"), absl::StatusCode::kInvalidArgument);
  ExpectBoth("/dev/null", absl::StatusCode::kInvalidArgument);
}

TEST_F(PathTest, EmptyFilesAndPathsAreRefused) {
  std::ofstream(In("empty")).flush();
  ExpectBoth(In("empty"), absl::StatusCode::kInvalidArgument);
  ExpectBoth("", absl::StatusCode::kInvalidArgument);
  ExpectBoth(std::string("/x\0y", 4).substr(0, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KernelImage::Open(std::string("/x\0y", 4)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PathTest, UnreadableFilesArePermissionDenied) {
  std::ofstream(In("secret")) << "x";
  ASSERT_EQ(::chmod(In("secret").c_str(), 0), 0);
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
  // Root may read everything: be somebody else meanwhile.
  const uid_t before = ::geteuid();
  if (before == 0) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  ExpectBoth(In("secret"), absl::StatusCode::kPermissionDenied);
  if (before == 0) {
    ASSERT_EQ(::seteuid(before), 0);
  }
}

}  // namespace
}  // namespace bothy::boot
