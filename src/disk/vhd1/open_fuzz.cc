// A mutated image, opened and written to, checked and repaired.
//
// The input is a list of changes to a small image: where, and which bytes. Then requests.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/footer.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace {

using bothy::disk::Await;
using bothy::disk::BorrowedStorage;
using bothy::disk::Disk;
using bothy::disk::MemoryStorage;
namespace vhd1 = bothy::disk::vhd1;

constexpr uint64_t kDiskBytes = 3 << 20;
constexpr uint64_t kMostBytes = 64 << 20;

// Bytes of the input, zero behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : bytes_(data, size) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  uint64_t Number(size_t size) {
    uint64_t number = 0;
    for (size_t i = 0; i < size && !bytes_.empty(); ++i) {
      number = number << 8 | bytes_.front();
      bytes_ = bytes_.subspan(1);
    }
    return number;
  }

 private:
  std::span<const uint8_t> bytes_;
};

std::unique_ptr<MemoryStorage> MakeImage(vhd1::Type type, const bothy::Guid& parent) {
  auto storage = std::make_unique<MemoryStorage>(
      MemoryStorage::Options{.path = "fuzz.vhd", .immediate = true, .max_bytes = kMostBytes});
  vhd1::CreateOptions options = {
      .size_bytes = kDiskBytes, .type = type, .block_size_bytes = vhd1::kMinBlockBytes};
  options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent};
  CHECK_OK(Await(vhd1::Create(*storage, options), *storage));
  return storage;
}

// Lets changed structures through the checksums: at the file's both ends, and behind the first.
void MendChecksums(MemoryStorage& storage) {
  const uint64_t footers[] = {0, storage.size() - vhd1::kFooterBytes};
  for (const uint64_t at : footers) {
    std::array<uint8_t, vhd1::kFooterBytes> bytes;
    storage.Peek(at, bytes);
    bothy::StoreBe(bytes.data() + 64, vhd1::Checksum(bytes, 64));
    storage.Poke(at, bytes);
  }
  std::array<uint8_t, 1024> header;
  storage.Peek(512, header);
  bothy::StoreBe(header.data() + 36, vhd1::Checksum(header, 36));
  storage.Poke(512, header);
}

void Exercise(Disk& disk, Input& input, std::span<MemoryStorage* const> storages) {
  std::vector<uint8_t> bytes(256 << 10, 0x5A);
  const uint64_t sectors = disk.geometry().size_bytes / 512;
  for (int i = 0; i < 24; ++i) {
    const uint64_t kind = input.Number(1);
    const uint64_t offset = input.Number(4) % sectors * 512;
    const uint64_t most = std::min<uint64_t>(bytes.size(), disk.geometry().size_bytes - offset);
    const uint64_t length = std::min((input.Number(2) + 1) * 512, most);
    const auto part = std::span(bytes).first(length);
    absl::Status status;
    switch (kind % 7) {
      case 0:
      case 1:
        status = Await(bothy::disk::WriteAt(disk, offset, part), storages);
        break;
      case 2:
        status = Await(bothy::disk::ReadAt(disk, offset, part), storages);
        break;
      case 3:
        status = Await(bothy::disk::Discard(disk, offset, length), storages);
        break;
      case 4:
        status = Await(bothy::disk::WriteZeroes(disk, offset, length), storages);
        break;
      case 5:
        status = Await(bothy::disk::Flush(disk), storages);
        break;
      default:
        status = Await(disk.MapExtent(offset), storages).status();
    }
  }
  const absl::Status closed = Await(disk.Close(), storages);
  static_cast<void>(closed);
}

void ExpectSound(MemoryStorage& image) {
  const auto report = Await(vhd1::Check(image), image);
  CHECK(report.ok());
  for (const bothy::disk::Problem& problem : report->problems) {
    if (report->sound()) break;
    std::fprintf(stderr, "offset %llu: %s: %s\n", static_cast<unsigned long long>(problem.offset),
                 problem.field.c_str(), problem.message.c_str());
  }
  CHECK(report->sound());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto type = static_cast<vhd1::Type>(input.Number(1) % 3);
  const std::unique_ptr<MemoryStorage> parent =
      MakeImage(vhd1::Type::kDynamic, bothy::Guid::FromFields(1, 2, 3, {}));
  const auto parent_id = [&] {
    std::array<uint8_t, 16> bytes;
    parent->Peek(68, bytes);
    return vhd1::LoadGuid(bytes.data());
  }();
  const std::unique_ptr<MemoryStorage> image = MakeImage(type, parent_id);
  const uint64_t changes = input.Number(1) % 16;
  for (uint64_t i = 0; i < changes; ++i) {
    const uint64_t where = input.Number(2);
    // From either end: footer, header, locators and table are within 4 KiB of them.
    const uint64_t at = where % 2 == 0 ? where / 2 % std::min<uint64_t>(image->size(), 8192)
                                       : image->size() - 1 - where / 2 % 512;
    const uint8_t byte = static_cast<uint8_t>(input.Number(1));
    image->Poke(at, std::span(&byte, 1));
  }
  const uint64_t flags = input.Number(1);
  if (flags % 4 != 0 && image->size() >= 2048) MendChecksums(*image);
  if (flags / 4 % 8 == 1) image->Truncate(image->size() - input.Number(2) % image->size());

  MemoryStorage* const both[] = {image.get(), parent.get()};
  vhd1::OpenOptions options;
  options.read_only = flags / 32 % 4 == 0;
  options.cache_bytes = 4096;
  const bothy::disk::ParentOpener open_parent = [&parent](const bothy::disk::ParentReference&) {
    vhd1::OpenOptions of_parent;
    of_parent.read_only = true;
    return vhd1::Open(std::make_unique<BorrowedStorage>(*parent), std::move(of_parent));
  };
  options.open_parent = open_parent;
  {
    auto disk =
        Await(vhd1::Open(std::make_unique<BorrowedStorage>(*image), std::move(options)), both);
    if (disk.ok()) Exercise(**disk, input, both);
  }
  const auto before = Await(vhd1::Repair(*image), *image);
  if (before.ok()) {
    ExpectSound(*image);
  }
  vhd1::ResizeOptions resize = {.size_bytes = (input.Number(3) + 1) * 512,
                                .discard_data = input.Number(1) % 2 == 0};
  resize.open_parent = open_parent;
  if (Await(vhd1::Resize(*image, resize), both).ok()) {
    ExpectSound(*image);
  }
  return 0;
}
