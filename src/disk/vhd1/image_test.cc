// The format's structures: footers and their copies, headers, parents' paths.
#include "disk/vhd1/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/dynamic_header.h"
#include "disk/vhd1/footer.h"
#include "disk/vhd1/parent_paths.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kDiskBytes = 8 << 20;

MemoryStorage NewStorage() { return MemoryStorage({.path = "a.vhd", .immediate = true}); }

absl::StatusOr<std::unique_ptr<Disk>> OpenIt(MemoryStorage& storage) {
  return Await(Open(std::make_unique<BorrowedStorage>(storage), OpenOptions()), storage);
}

void MakeImage(MemoryStorage& storage, Type type = Type::kDynamic) {
  const CreateOptions options = {.size_bytes = kDiskBytes, .type = type};
  ASSERT_TRUE(Await(Create(storage, options), storage).ok());
}

// Changes bytes of the footer at `at`, whose checksum is right again afterwards.
void ChangeFooter(MemoryStorage& storage, uint64_t at, size_t field,
                  std::span<const uint8_t> value) {
  std::array<uint8_t, kFooterBytes> bytes;
  storage.Peek(at, bytes);
  std::ranges::copy(value, bytes.begin() + static_cast<ptrdiff_t>(field));
  StoreBe(bytes.data() + 64, Checksum(bytes, 64));
  storage.Poke(at, bytes);
}

TEST(ChsGeometryTest, IsThatOfTheSpecification) {
  EXPECT_EQ(ChsGeometry::For(131072), (ChsGeometry{963, 8, 17}));
  EXPECT_EQ(ChsGeometry::For(uint64_t{1} << 31), (ChsGeometry{65535, 16, 255}));
  EXPECT_EQ(ChsGeometry::For(1).sectors(), 0U);
}

TEST(FooterTest, SurvivesEncoding) {
  Footer footer = MakeFooter(kDiskBytes, DiskType::kDynamic, Guid());
  footer.saved_state = true;
  const auto bytes = footer.Encode();
  const absl::StatusOr<Footer> decoded = DecodeFooter(bytes, 0);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, footer);
}

TEST(FooterTest, StoresIdentifiersInNetworkOrder) {
  const Guid id = *Guid::Parse("00112233-4455-6677-8899-aabbccddeeff");
  const auto bytes = MakeFooter(kDiskBytes, DiskType::kFixed, id).Encode();
  for (uint8_t i = 0; i < 16; ++i) EXPECT_EQ(bytes[68 + i], i * 0x11);
}

TEST(FooterTest, TellsWhereItIsWrong) {
  auto bytes = MakeFooter(kDiskBytes, DiskType::kDynamic, Guid()).Encode();
  bytes[100] ^= 1;
  const absl::Status status = DecodeFooter(bytes, 5120).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("offset 5184: Footer.Checksum"));
}

TEST(ImageTest, OpensByTheCopyWhenTheFooterIsLost) {
  for (const uint64_t lost : {uint64_t{512}, uint64_t{100}}) {
    MemoryStorage storage = NewStorage();
    MakeImage(storage);
    storage.Truncate(storage.size() - lost);
    const auto disk = OpenIt(storage);
    ASSERT_TRUE(disk.ok()) << disk.status();
    EXPECT_EQ((*disk)->geometry().size_bytes, kDiskBytes);
    // Writing puts a new one at the end.
    const std::vector<uint8_t> bytes(512, 7);
    ASSERT_TRUE(Await(WriteAt(**disk, 0, bytes), storage).ok());
    ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
    const auto footers = Await(ReadFooters(storage), storage);
    ASSERT_TRUE(footers.ok());
    EXPECT_TRUE(footers->last.ok()) << footers->last.status();
  }
}

TEST(ImageTest, OpensByTheFooterWhenTheCopyIsDamaged) {
  MemoryStorage storage = NewStorage();
  MakeImage(storage);
  storage.Poke(60, std::vector<uint8_t>(4, 0xEE));
  EXPECT_TRUE(OpenIt(storage).ok());
}

TEST(ImageTest, KnowsShortFooters) {
  MemoryStorage storage = NewStorage();
  MakeImage(storage, Type::kFixed);
  storage.Truncate(storage.size() - 1);
  const auto disk = OpenIt(storage);
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ((*disk)->geometry().size_bytes, kDiskBytes);
}

TEST(ImageTest, ShowsTheSizeThatTheCreatorMeant) {
  MemoryStorage storage = NewStorage();
  MakeImage(storage, Type::kFixed);
  const uint64_t geometry = ChsGeometry::For(kDiskBytes / 512).sectors() * 512;
  ASSERT_LT(geometry, kDiskBytes);
  const struct {
    std::string creator;
    uint64_t size;
  } cases[] = {{"win ", kDiskBytes},
               {"vpc ", kDiskBytes},
               {"d2v ", kDiskBytes},
               {"qem2", kDiskBytes},
               {"qemu", geometry}};
  for (const auto& [creator, size] : cases) {
    ChangeFooter(storage, kDiskBytes, 28,
                 std::span(reinterpret_cast<const uint8_t*>(creator.data()), 4));
    const auto disk = OpenIt(storage);
    ASSERT_TRUE(disk.ok()) << disk.status();
    EXPECT_EQ((*disk)->geometry().size_bytes, size) << creator;
  }
}

TEST(ImageTest, RefusesWhatIsNone) {
  MemoryStorage storage = NewStorage();
  EXPECT_EQ(OpenIt(storage).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(*Await(Probe(storage), storage));
  storage.Truncate(1 << 20);
  EXPECT_FALSE(*Await(Probe(storage), storage));
  MakeImage(storage);
  EXPECT_TRUE(*Await(Probe(storage), storage));
}

TEST(ImageTest, NamesTheFieldThatCannotBe) {
  struct Case {
    uint64_t at;
    std::vector<uint8_t> bytes;
    std::string message;
  };
  const Case cases[] = {
      {512 + 28, {0, 0, 0, 1}, "offset 540: DynamicHeader.MaxTableEntries"},
      {512 + 32, {0, 0, 0, 3}, "offset 544: DynamicHeader.BlockSize"},
      {512 + 16, {0xFF, 0, 0, 0, 0, 0, 0, 0}, "offset 528: DynamicHeader.TableOffset"},
      {512 + 24, {0, 9, 0, 0}, "offset 536: DynamicHeader.HeaderVersion"},
      {512, {'x'}, "offset 512: DynamicHeader.Cookie"},
  };
  for (const Case& c : cases) {
    MemoryStorage storage = NewStorage();
    MakeImage(storage);
    storage.Poke(c.at, c.bytes);
    std::array<uint8_t, kDynamicHeaderBytes> header;
    storage.Peek(512, header);
    StoreBe(header.data() + kHeaderChecksumAt, Checksum(header, kHeaderChecksumAt));
    storage.Poke(512, header);
    const absl::Status status = OpenIt(storage).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("a.vhd: " + c.message));
  }
}

TEST(ImageTest, ABlockOutsideTheFileIsDataLoss) {
  MemoryStorage storage = NewStorage();
  MakeImage(storage);
  storage.Poke(1536 + 4, std::vector<uint8_t>{0x10, 0, 0, 0});
  storage.Poke(1536 + 8, std::vector<uint8_t>{0, 0, 0, 1});
  auto disk = OpenIt(storage);
  ASSERT_TRUE(disk.ok());
  std::vector<uint8_t> bytes(512);
  // The others are all right, but none can be added.
  EXPECT_TRUE(Await(ReadAt(**disk, 0, bytes), storage).ok());
  const absl::Status past = Await(ReadAt(**disk, 2 << 20, bytes), storage);
  EXPECT_EQ(past.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(past.message()), HasSubstr("offset 1540: BAT[1]"));
  const absl::Status on_header = Await(ReadAt(**disk, 4 << 20, bytes), storage);
  EXPECT_EQ(on_header.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Await(WriteAt(**disk, 0, bytes), storage).code(), absl::StatusCode::kDataLoss);
}

TEST(ParentPathsTest, AreTriedRelativeOnesFirst) {
  MemoryStorage storage = NewStorage();
  CreateOptions options = {.size_bytes = kDiskBytes, .type = Type::kDifferencing};
  options.parent = {.relative_path = "../bäse 😀.vhd",
                    .absolute_path = "/images/bäse 😀.vhd",
                    .linkage = Guid::Random()};
  ASSERT_TRUE(Await(Create(storage, options), storage).ok());
  const auto image = Await(ReadImage(storage), storage);
  ASSERT_TRUE(image.ok());
  const auto reference = Await(ReadParentReference(storage, *image->header, 512), storage);
  ASSERT_TRUE(reference.ok());
  EXPECT_THAT(reference->candidate_paths, ElementsAre("../bäse 😀.vhd", "/images/bäse 😀.vhd"));
  // Each once, though the header has the absolute one, too.
  EXPECT_THAT(reference->spelled_paths, ElementsAre("..\\bäse 😀.vhd", "\\images\\bäse 😀.vhd"));
}

TEST(ParentPathsTest, OldSpellingsAreRead) {
  MemoryStorage storage = NewStorage();
  const std::string relative = R"(.\base.vhd)";
  const std::string url = "file://localhost/Volumes/my%20base.vhd";
  storage.Poke(0, std::span(reinterpret_cast<const uint8_t*>(relative.data()), relative.size()));
  storage.Poke(512, std::span(reinterpret_cast<const uint8_t*>(url.data()), url.size()));
  DynamicHeader header;
  header.locators[0] = {.platform_code = kMacUrl,
                        .data_space = 1,
                        .data_length = static_cast<uint32_t>(url.size()),
                        .data_offset = 512};
  header.locators[3] = {.platform_code = kOldWindowsRelative,
                        .data_space = 1,
                        .data_length = static_cast<uint32_t>(relative.size()),
                        .data_offset = 0};
  header.locators[4] = {.platform_code = kWindowsAbsolute,
                        .data_space = 1,
                        .data_length = 0xFFFFFFFF,
                        .data_offset = 0};
  const auto reference = Await(ReadParentReference(storage, header, 512), storage);
  ASSERT_TRUE(reference.ok());
  EXPECT_THAT(reference->candidate_paths, ElementsAre("./base.vhd", "/Volumes/my base.vhd"));
}

TEST(ParentTest, MustBeTheOneTheChildWasMadeFor) {
  MemoryStorage storage = NewStorage();
  const Guid wanted = Guid::Random();
  CreateOptions options = {.size_bytes = kDiskBytes, .type = Type::kDifferencing};
  options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = wanted};
  ASSERT_TRUE(Await(Create(storage, options), storage).ok());
  EXPECT_EQ(OpenIt(storage).status().code(), absl::StatusCode::kFailedPrecondition);

  MemoryStorage parent({.path = "base.vhd", .immediate = true});
  MakeImage(parent);
  OpenOptions open;
  open.open_parent = [&parent](const ParentReference&) {
    return Open(std::make_unique<BorrowedStorage>(parent), OpenOptions());
  };
  const auto disk =
      Await(Open(std::make_unique<BorrowedStorage>(storage), std::move(open)), storage);
  EXPECT_EQ(disk.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(disk.status().message()), HasSubstr(wanted.ToString()));
  const auto image = Await(ReadImage(parent), parent);
  EXPECT_THAT(std::string(disk.status().message()), HasSubstr(image->footer.unique_id.ToString()));
}

TEST(SetParentLinkageTest, ChangesPathsAndIdentifier) {
  MemoryStorage storage = NewStorage();
  CreateOptions options = {.size_bytes = kDiskBytes, .type = Type::kDifferencing};
  options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = Guid::Random()};
  ASSERT_TRUE(Await(Create(storage, options), storage).ok());
  const Guid id = Guid::Random();
  const ParentSpelling now = {
      .relative_path = "other/base.vhd", .absolute_path = "/b.vhd", .linkage = id};
  ASSERT_TRUE(Await(SetParentLinkage(storage, now), storage).ok());
  const auto image = Await(ReadImage(storage), storage);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->header->parent_unique_id, id);
  const auto reference = Await(ReadParentReference(storage, *image->header, 512), storage);
  EXPECT_THAT(reference->candidate_paths, ElementsAre("./other/base.vhd", "/b.vhd"));
  const auto report = Await(Check(storage), storage);
  EXPECT_TRUE(report->sound());
}

}  // namespace
}  // namespace bothy::disk::vhd1
