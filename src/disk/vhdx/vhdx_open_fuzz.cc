// Mutated images: any field of any structure set to anything, with checksums that match, logs made
// of anything, then I/O, Check and Repair. Nothing may crash, hang or take much memory; what is
// repaired is sound.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <map>

#include "disk/vhdx/crc32c.h"
#include "disk/vhdx/header.h"
#include "disk/vhdx/log_entry.h"
#include "disk/vhdx/region_table.h"
#include "disk/vhdx/test_images.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kMaxBlocksToCheck = 1 << 18;
constexpr uint64_t kMaxFile = 64 << 20;
const Guid kLog = Guid::FromFields(1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11});

// One of each type and sector size, with a few blocks written.
TestImages& Base(uint32_t which) {
  static std::map<uint32_t, std::unique_ptr<TestImages>> images;
  std::unique_ptr<TestImages>& made = images[which];
  if (made != nullptr) return *made;
  constexpr Type kTypes[] = {Type::kFixed, Type::kDynamic, Type::kDifferencing};
  Shape shape;
  shape.type = kTypes[which % 3];
  shape.sector_bytes = which % 2 == 0 ? 512 : 4096;
  shape.disk_bytes = 3 << 20;
  made = std::make_unique<TestImages>(shape);
  std::unique_ptr<Disk> disk = made->OpenImage();
  const std::vector<uint8_t> bytes(8192, 0x5A);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1} << 20}) {
    CHECK_OK(Await(WriteAt(*disk, offset, std::span<const uint8_t>(bytes)), made->both()));
  }
  CHECK_OK(Await(disk->Close(), made->both()));
  return *made;
}

void FixChecksum(MemoryStorage& file, uint64_t offset, size_t length) {
  std::vector<uint8_t> bytes(length);
  file.Peek(offset, bytes);
  StoreLe(bytes.data() + 4, Crc32cWithoutField(bytes, 4));
  file.Poke(offset, bytes);
}

uint64_t Value(FuzzedDataProvider& input) {
  constexpr std::array<uint64_t, 16> kInteresting = {0,
                                                     1,
                                                     2,
                                                     3,
                                                     6,
                                                     7,
                                                     512,
                                                     4096,
                                                     0x100000,
                                                     0x100006,
                                                     0x100007,
                                                     0x200006,
                                                     UINT32_MAX,
                                                     UINT64_MAX,
                                                     uint64_t{1} << 46,
                                                     0xFFFFFFFFFFF00006};
  return input.ConsumeBool() ? input.PickValueInArray(kInteresting)
                             : input.ConsumeIntegral<uint64_t>();
}

void PutField(FuzzedDataProvider& input, MemoryStorage& file, uint64_t begin, uint64_t span) {
  const uint64_t at = begin + input.ConsumeIntegralInRange<uint64_t>(0, span / 4 - 1) * 4;
  uint8_t bytes[8];
  StoreLe(bytes, Value(input));
  const size_t sizes[] = {1, 2, 4, 8};
  file.Poke(at, std::span<const uint8_t>(bytes).first(input.PickValueInArray(sizes)));
}

// A log that is in use, with entries of pages and zeros for anywhere.
void PutLog(FuzzedDataProvider& input, MemoryStorage& file, const Header& header) {
  uint64_t at = input.ConsumeIntegralInRange<uint64_t>(0, 255) * kLogSectorBytes;
  const uint64_t tail = at;
  uint64_t sequence = Value(input) | 1;
  for (int entries = input.ConsumeIntegralInRange(1, 3); entries > 0; --entries) {
    std::vector<std::array<uint8_t, kLogSectorBytes>> pages(
        input.ConsumeIntegralInRange<size_t>(1, 4));
    std::vector<PageWrite> writes;
    for (auto& page : pages) {
      page.fill(0);
      StoreLe(page.data() + input.ConsumeIntegralInRange<size_t>(0, 511) * 8, Value(input));
      const uint64_t places[] = {header.log_offset + header.log_length,
                                 header.log_offset + header.log_length + kMiB,
                                 kRegionTableOffsets[0], Value(input)};
      writes.push_back({.file_offset = RoundDown(input.PickValueInArray(places), kLogSectorBytes),
                        .bytes = page.data()});
    }
    LogEntryHeader entry;
    entry.tail = static_cast<uint32_t>(tail);
    entry.sequence_number = sequence++;
    entry.log_guid = kLog;
    entry.flushed_file_offset = input.ConsumeBool() ? 0 : RoundDown(Value(input), kMiB);
    entry.last_file_offset = input.ConsumeBool() ? 0 : RoundDown(Value(input) % kMaxFile, kMiB);
    std::vector<uint8_t> bytes = BuildLogEntry(entry, writes);
    if (input.ConsumeBool()) {
      // Some field, and the last descriptor one that zeroes.
      StoreLe(bytes.data() + input.ConsumeIntegralInRange<size_t>(0, 23) * 8, Value(input));
    }
    StoreLe(bytes.data() + 4, Crc32cWithoutField(bytes, 4));
    for (size_t i = 0; i < bytes.size(); i += kLogSectorBytes) {
      file.Poke(header.log_offset + at % header.log_length,
                std::span<const uint8_t>(bytes).subspan(i, kLogSectorBytes));
      at += kLogSectorBytes;
    }
  }
}

void Mutate(FuzzedDataProvider& input, MemoryStorage& file) {
  std::array<uint8_t, kHeaderBytes> bytes;
  file.Peek(kHeaderOffsets[1], bytes);
  absl::StatusOr<Header> header = ParseHeader(bytes, kHeaderOffsets[1]);
  CHECK_OK(header.status());
  const uint64_t metadata = header->log_offset + header->log_length;
  const uint64_t bat = metadata + kMiB;
  for (int left = input.ConsumeIntegralInRange(0, 12); left > 0; --left) {
    switch (input.ConsumeIntegralInRange(0, 7)) {
      case 0:
        PutField(input, file, kHeaderOffsets[input.ConsumeBool() ? 1 : 0], 96);
        break;
      case 1:
        PutField(input, file, kRegionTableOffsets[input.ConsumeBool() ? 1 : 0], 96);
        break;
      case 2:
        PutField(input, file, metadata, 256);
        break;
      case 3:
        PutField(input, file, metadata + kMetadataTableBytes, 512);
        break;
      case 4:
        PutField(input, file, bat, 64);
        break;
      case 5:
        PutField(input, file, bat + uint64_t{8} * 4096, 64);  // sector bitmap entries
        break;
      case 6:
        PutLog(input, file, *header);
        header->log_guid = kLog;
        ++header->sequence_number;
        BuildHeader(*header, bytes);
        file.Poke(kHeaderOffsets[1], bytes);
        break;
      default:
        file.Truncate(input.ConsumeIntegralInRange<uint64_t>(0, kMaxFile));
    }
  }
  for (const uint64_t offset : kHeaderOffsets) {
    if (input.ConsumeIntegralInRange(0, 7) != 0) FixChecksum(file, offset, kHeaderBytes);
  }
  for (const uint64_t offset : kRegionTableOffsets) {
    if (input.ConsumeIntegralInRange(0, 7) != 0) FixChecksum(file, offset, kRegionTableBytes);
  }
}

void UseDisk(FuzzedDataProvider& input, Disk& disk, std::span<MemoryStorage* const> storages) {
  const uint64_t sector = disk.geometry().logical_sector_bytes;
  const uint64_t sectors = disk.geometry().size_bytes / sector;
  std::vector<uint8_t> bytes;
  for (int left = input.ConsumeIntegralInRange(0, 10); left > 0; --left) {
    const uint64_t first = input.ConsumeBool()
                               ? input.ConsumeIntegralInRange<uint64_t>(0, sectors - 1)
                               : std::min<uint64_t>(input.ConsumeIntegral<uint8_t>(), sectors - 1);
    const uint64_t count =
        std::min(sectors - first, input.ConsumeIntegralInRange<uint64_t>(1, 4096));
    bytes.resize(std::min<uint64_t>(count, 64) * sector);
    // Whether they succeed is the image's affair.
    switch (input.ConsumeIntegralInRange(0, 6)) {
      case 0:
        (void)Await(ReadAt(disk, first * sector, std::span<uint8_t>(bytes)), storages);
        break;
      case 1:
      case 2:
        (void)Await(WriteAt(disk, first * sector, std::span<const uint8_t>(bytes)), storages);
        break;
      case 3:
        (void)Await(Discard(disk, first * sector, count * sector), storages);
        break;
      case 4:
        (void)Await(WriteZeroes(disk, first * sector, count * sector), storages);
        break;
      case 5:
        (void)Await(disk.MapExtent(first * sector), storages);
        (void)Await(disk.FindPresence(first * sector), storages);
        break;
      default:
        (void)Await(Flush(disk), storages);
    }
  }
}

void Run(FuzzedDataProvider& input) {
  TestImages& base = Base(input.ConsumeIntegralInRange<uint32_t>(0, 5));
  MemoryStorage file({.path = "fuzz.vhdx",
                      .immediate = input.ConsumeBool(),
                      .seed = input.ConsumeIntegral<uint8_t>(),
                      .max_bytes = uint64_t{1} << 48});
  for (const auto& [index, bytes] : base.image().chunks()) {
    file.Poke(index * MemoryStorage::kChunkBytes, bytes);
  }
  file.Truncate(base.image().size());
  Mutate(input, file);
  const std::vector<MemoryStorage*> storages = {&file, &base.parent()};
  uint64_t blocks = 0;
  for (const bool read_only : {true, false}) {
    auto disk = base.TryOpenImage(file, read_only, storages);
    if (!disk.ok()) continue;
    for (const Fact& fact : (*disk)->Facts()) {
      if (fact.name == "blocks") blocks = std::get<uint64_t>(fact.value);
    }
    UseDisk(input, **disk, storages);
    (void)Await((*disk)->Close(), std::span(storages));
  }
  if (blocks > kMaxBlocksToCheck) return;
  if (input.ConsumeBool()) {
    const uint64_t size = (input.ConsumeIntegral<uint16_t>() + uint64_t{1}) * 4096;
    ResizeOptions resize = {.size_bytes = size, .discard_data = input.ConsumeBool()};
    resize.open_parent = base.parent_opener();
    if (Await(Resize(file, resize), std::span(storages)).ok()) {
      const auto resized = Await(Check(file), file);
      CHECK(resized.ok() && resized->sound());
    }
  }
  const auto before = Await(Repair(file), file);
  if (!before.ok()) return;
  const auto after = Await(Check(file), file);
  CHECK(after.ok());
  // What can't even be opened can't be repaired.
  if (before->block_size_bytes != 0) CHECK(after->sound());
}

}  // namespace
}  // namespace bothy::disk::vhdx

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  bothy::disk::vhdx::Run(input);
  return 0;
}
