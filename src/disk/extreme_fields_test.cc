// Images with every field of every structure at its extremes: what is wrong with them is said with
// the place, nothing hangs, and it takes little memory to find out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/disk.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/peak_heap.h"
#include "disk/vhd1/footer.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/crc32c.h"
#include "disk/vhdx/header.h"
#include "disk/vhdx/region_table.h"
#include "disk/vhdx/test_images.h"
#include "support/endian.h"

namespace bothy::disk {
namespace {

constexpr size_t kMostMemory = 64 << 20;
constexpr uint64_t kDiskBytes = 3 << 20;

// Bytes of structures, twice where the format has them twice.
struct Place {
  std::string name;
  std::vector<uint64_t> copies;  // offsets of each
  uint64_t bytes = 0;
  std::function<void(MemoryStorage&)> mend_checksums = [](MemoryStorage&) {};
};

template <typename T>
std::vector<T> Extremes(T now) {
  constexpr T kTop = T{1} << (sizeof(T) * 8 - 1);
  return {0,
          1,
          kTop - 1,
          kTop,
          static_cast<T>(kTop + 1),
          static_cast<T>(~T{0} - 1),
          static_cast<T>(~T{0}),
          static_cast<T>(now - 1),
          static_cast<T>(now + 1)};
}

class ExtremeFieldsTest : public testing::Test {
 protected:
  using OpenDisk = std::function<Task<absl::StatusOr<std::unique_ptr<Disk>>>(Storage&, bool)>;

  // Every field of `places` in copies of `image` at each of its extremes. Structures differ in
  // their byte order; as all sizes are tried at all places, extremes of either are among them.
  void TryAll(const MemoryStorage& image, const std::vector<Place>& places,
              const std::vector<MemoryStorage*>& others, const OpenDisk& open) {
    for (const Place& place : places) {
      for (uint64_t at = 0; at < place.bytes; at += 4) {
        TryField<uint32_t>(image, place, at, others, open);
        if (at % 8 == 0) TryField<uint64_t>(image, place, at, others, open);
      }
    }
    EXPECT_GT(refused_, opened_ / 20);
    EXPECT_GT(opened_, 0);
  }

 private:
  template <typename T>
  void TryField(const MemoryStorage& image, const Place& place, uint64_t at,
                const std::vector<MemoryStorage*>& others, const OpenDisk& open) {
    std::array<uint8_t, sizeof(T)> bytes;
    image.Peek(place.copies[0] + at, bytes);
    for (const bool big_endian : {false, true}) {
      for (const T value :
           Extremes(big_endian ? LoadBe<T>(bytes.data()) : LoadLe<T>(bytes.data()))) {
        std::array<uint8_t, sizeof(T)> changed;
        big_endian ? StoreBe(changed.data(), value) : StoreLe(changed.data(), value);
        SCOPED_TRACE(
            absl::StrCat(place.name, " + ", at, ", ", sizeof(T), " bytes: ", absl::Hex(value)));
        const PeakHeap heap;
        MemoryStorage file({.path = "extreme", .immediate = true, .max_bytes = uint64_t{1} << 48});
        for (const auto& [index, chunk] : image.chunks()) {
          file.Poke(index * MemoryStorage::kChunkBytes, chunk);
        }
        file.Truncate(image.size());
        for (const uint64_t copy : place.copies) file.Poke(copy + at, changed);
        place.mend_checksums(file);
        for (const bool read_only : {true, false}) Use(file, read_only, others, open);
        EXPECT_LE(heap.bytes(), kMostMemory + file.resident_bytes());
        if (HasFailure()) return;
      }
    }
  }

  void Use(MemoryStorage& file, bool read_only, std::vector<MemoryStorage*> storages,
           const OpenDisk& open) {
    storages.push_back(&file);
    const std::span<MemoryStorage* const> all = storages;
    const auto disk = Await(open(file, read_only), all);
    if (!disk.ok()) {
      ++refused_;
      Judge(disk.status());
      return;
    }
    ++opened_;
    const uint64_t size = (*disk)->geometry().size_bytes;
    std::array<uint8_t, 4096> bytes{};
    for (const uint64_t offset : {uint64_t{0}, kDiskBytes / 2, size - 4096}) {
      if (offset > size - bytes.size() || size < bytes.size()) continue;
      Judge(Await(ReadAt(**disk, offset, std::span<uint8_t>(bytes)), all));
      if (read_only) continue;
      Judge(Await(WriteAt(**disk, offset, std::span<const uint8_t>(bytes)), all));
      Judge(Await(Discard(**disk, offset, bytes.size()), all));
    }
    Judge(Await(Flush(**disk), all));
    Judge(Await((*disk)->Close(), all));
  }

  // What may be said of an image.
  static void Judge(const absl::Status& status) {
    if (status.ok()) return;
    const std::string message(status.message());
    // Of another parent than the one there is.
    if (absl::IsFailedPrecondition(status) && absl::StrContains(message, "the parent ")) return;
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(message, testing::ContainsRegex("offset [0-9]+: [a-zA-Z]")) << status;
  }

  int refused_ = 0;
  int opened_ = 0;
};

void MendVhdx(MemoryStorage& file) {
  const auto mend = [&file](uint64_t offset, size_t length) {
    std::vector<uint8_t> bytes(length);
    file.Peek(offset, bytes);
    StoreLe(bytes.data() + 4, vhdx::Crc32cWithoutField(bytes, 4));
    file.Poke(offset, bytes);
  };
  for (const uint64_t offset : vhdx::kHeaderOffsets) mend(offset, vhdx::kHeaderBytes);
  for (const uint64_t offset : vhdx::kRegionTableOffsets) mend(offset, vhdx::kRegionTableBytes);
}

class VhdxExtremeFieldsTest : public ExtremeFieldsTest,
                              public testing::WithParamInterface<vhdx::Type> {};

TEST_P(VhdxExtremeFieldsTest, AreRefusedWithTheirPlace) {
  vhdx::TestImages images({.type = GetParam(), .disk_bytes = kDiskBytes});
  {
    std::unique_ptr<Disk> disk = images.OpenImage();
    const std::vector<uint8_t> bytes(8192, 0x5A);
    ASSERT_TRUE(Await(WriteAt(*disk, 0, std::span<const uint8_t>(bytes)), images.both()).ok());
    ASSERT_TRUE(Await(disk->Close(), images.both()).ok());
  }
  std::array<uint8_t, vhdx::kHeaderBytes> bytes;
  images.image().Peek(vhdx::kHeaderOffsets[1], bytes);
  const auto header = vhdx::ParseHeader(bytes, vhdx::kHeaderOffsets[1]);
  ASSERT_TRUE(header.ok());
  const uint64_t metadata = header->log_offset + header->log_length;
  const uint64_t bat = metadata + vhdx::kMiB;
  TryAll(
      images.image(),
      {{"header", {vhdx::kHeaderOffsets[0], vhdx::kHeaderOffsets[1]}, 80, MendVhdx},
       {"region table", {vhdx::kRegionTableOffsets[0], vhdx::kRegionTableOffsets[1]}, 80, MendVhdx},
       {"metadata table", {metadata}, 32 + 6 * 32},
       {"metadata items", {metadata + vhdx::kMetadataTableBytes}, 128},
       {"BAT", {bat}, 32},
       {"BAT, sector bitmap", {bat + uint64_t{8} * 4096}, 8}},
      {&images.parent()}, [&images](Storage& storage, bool read_only) {
        vhdx::OpenOptions options;
        options.read_only = read_only;
        options.open_parent = images.parent_opener();
        return vhdx::Open(std::make_unique<BorrowedStorage>(storage), std::move(options));
      });
}

INSTANTIATE_TEST_SUITE_P(Types, VhdxExtremeFieldsTest,
                         testing::Values(vhdx::Type::kFixed, vhdx::Type::kDynamic,
                                         vhdx::Type::kDifferencing));

// The footer, its copy, and the header of dynamic ones.
void MendVhd1(MemoryStorage& file) {
  for (const uint64_t at : {uint64_t{0}, file.size() - vhd1::kFooterBytes}) {
    std::array<uint8_t, vhd1::kFooterBytes> bytes;
    file.Peek(at, bytes);
    if (std::string_view(reinterpret_cast<const char*>(bytes.data()), 7) != "conecti") continue;
    StoreBe(bytes.data() + 64, vhd1::Checksum(bytes, 64));
    file.Poke(at, bytes);
  }
  std::array<uint8_t, 1024> header;
  file.Peek(512, header);
  StoreBe(header.data() + 36, vhd1::Checksum(header, 36));
  file.Poke(512, header);
}

class Vhd1ExtremeFieldsTest : public ExtremeFieldsTest,
                              public testing::WithParamInterface<vhd1::Type> {
 protected:
  static absl::Status Make(MemoryStorage& storage, vhd1::Type type, const Guid& parent) {
    vhd1::CreateOptions options = {
        .size_bytes = kDiskBytes, .type = type, .block_size_bytes = vhd1::kMinBlockBytes};
    options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent};
    return Await(vhd1::Create(storage, options), storage);
  }
};

TEST_P(Vhd1ExtremeFieldsTest, AreRefusedWithTheirPlace) {
  MemoryStorage parent({.path = "base.vhd", .immediate = true});
  ASSERT_TRUE(Make(parent, vhd1::Type::kDynamic, Guid()).ok());
  std::array<uint8_t, 16> id;
  parent.Peek(68, id);
  MemoryStorage image({.path = "child.vhd", .immediate = true});
  ASSERT_TRUE(Make(image, GetParam(), vhd1::LoadGuid(id.data())).ok());
  const ParentOpener open_parent = [&parent](const ParentReference&) {
    vhd1::OpenOptions options;
    options.read_only = true;
    return vhd1::Open(std::make_unique<BorrowedStorage>(parent), std::move(options));
  };
  std::vector<Place> places = {{"footer", {image.size() - vhd1::kFooterBytes}, 88, MendVhd1}};
  if (GetParam() != vhd1::Type::kFixed) {
    places[0].copies.push_back(0);
    places.push_back({"header", {512}, 64, MendVhd1});
    places.push_back({"parent locators", {512 + 576}, 48, MendVhd1});
    places.push_back({"table", {512 + 1024}, 24});
  }
  TryAll(image, places, {&parent}, [&](Storage& storage, bool read_only) {
    vhd1::OpenOptions options;
    options.read_only = read_only;
    options.open_parent = open_parent;
    return vhd1::Open(std::make_unique<BorrowedStorage>(storage), std::move(options));
  });
}

INSTANTIATE_TEST_SUITE_P(Types, Vhd1ExtremeFieldsTest,
                         testing::Values(vhd1::Type::kFixed, vhd1::Type::kDynamic,
                                         vhd1::Type::kDifferencing));

}  // namespace
}  // namespace bothy::disk
