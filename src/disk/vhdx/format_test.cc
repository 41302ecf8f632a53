// Headers, region table, metadata, BAT: what is built parses, what is wrong is named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "disk/vhdx/bat.h"
#include "disk/vhdx/crc32c.h"
#include "disk/vhdx/header.h"
#include "disk/vhdx/metadata.h"
#include "disk/vhdx/region_table.h"
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/space_map.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

Header SomeHeader(uint64_t sequence_number) {
  Header header;
  header.sequence_number = sequence_number;
  header.file_write_guid = Guid::Random();
  header.data_write_guid = Guid::Random();
  header.log_length = kMiB;
  header.log_offset = kMiB;
  return header;
}

TEST(HeaderTest, ParsesWhatItBuilds) {
  const Header header = SomeHeader(5);
  HeaderBytes bytes;
  BuildHeader(header, bytes);
  EXPECT_EQ(bytes[0], 'h');
  EXPECT_EQ(*ParseHeader(bytes, kHeaderOffsets[0]), header);
  for (const size_t at : {0, 4, 8, 70, 4095}) {
    HeaderBytes damaged = bytes;
    damaged[at] ^= 1;
    EXPECT_TRUE(absl::IsDataLoss(ParseHeader(damaged, 0).status())) << at;
  }
}

TEST(HeaderTest, TheNewerOneIsCurrent) {
  const absl::StatusOr<Header> old = SomeHeader(5);
  const absl::StatusOr<Header> fresh = SomeHeader(6);
  const absl::StatusOr<Header> bad = absl::DataLossError("bad");
  EXPECT_EQ(*ChooseHeader(old, fresh), 1);
  EXPECT_EQ(*ChooseHeader(fresh, old), 0);
  EXPECT_EQ(*ChooseHeader(bad, old), 1);
  EXPECT_EQ(*ChooseHeader(old, bad), 0);
  EXPECT_EQ(*ChooseHeader(old, old), 0);
  EXPECT_FALSE(ChooseHeader(bad, bad).ok());
  // Of two with one number neither can be told to be current.
  EXPECT_FALSE(ChooseHeader(old, absl::StatusOr<Header>(SomeHeader(5))).ok());
}

TEST(HeaderTest, NamesTheFieldThatIsWrong) {
  const auto check = [](auto change) {
    Header header = SomeHeader(1);
    change(header);
    return Message(CheckHeaderFields(header, kHeaderOffsets[0], 16 * kMiB));
  };
  EXPECT_EQ(check([](Header&) {}), "");
  EXPECT_THAT(check([](Header& h) { h.version = 2; }), HasSubstr("offset 65602: Header.Version"));
  EXPECT_THAT(check([](Header& h) { h.log_length = 4096; }), HasSubstr("Header.LogLength"));
  EXPECT_THAT(check([](Header& h) { h.log_length = 0xFFF00000; }), HasSubstr("Header.LogLength"));
  EXPECT_THAT(check([](Header& h) { h.log_offset = 0; }), HasSubstr("Header.LogOffset"));
  EXPECT_THAT(check([](Header& h) { h.log_offset = 16 * kMiB; }), HasSubstr("Header.LogOffset"));
  EXPECT_THAT(check([](Header& h) { h.log_offset = ~(kMiB - 1); }), HasSubstr("Header.LogOffset"));
  // A log of another version matters when there is something in it.
  EXPECT_EQ(check([](Header& h) { h.log_version = 1; }), "");
  EXPECT_THAT(check([](Header& h) {
                h.log_version = 1;
                h.log_guid = Guid::Random();
              }),
              HasSubstr("Header.LogVersion"));
}

class RegionTableTest : public ::testing::Test {
 protected:
  RegionTableTest() {
    table_.regions = {{kBatRegion, 3 * kMiB, kMiB, true}, {kMetadataRegion, 2 * kMiB, kMiB, true}};
  }
  absl::StatusOr<RegionTable> Parse() {
    std::vector<uint8_t> bytes(kRegionTableBytes);
    BuildRegionTable(table_, std::span(bytes).first<kRegionTableBytes>());
    return ParseRegionTable(std::span(bytes).first<kRegionTableBytes>(), kRegionTableOffsets[0]);
  }
  RegionTable table_;
};

TEST_F(RegionTableTest, ParsesWhatItBuilds) {
  EXPECT_EQ(*Parse(), table_);
  EXPECT_EQ(Parse()->bat().offset, 3 * kMiB);
}
TEST_F(RegionTableTest, KeepsUnknownOptionalRegions) {
  table_.regions.push_back({Guid::Random(), 8 * kMiB, kMiB, false});
  EXPECT_EQ(*Parse(), table_);
}
TEST_F(RegionTableTest, RefusesUnknownRequiredRegions) {
  table_.regions.push_back({Guid::Random(), 8 * kMiB, kMiB, true});
  EXPECT_TRUE(absl::IsInvalidArgument(Parse().status()));
  EXPECT_THAT(Message(Parse().status()), HasSubstr("offset 196688: RegionTable[2].Guid"));
}
TEST_F(RegionTableTest, NamesTheEntryThatIsWrong) {
  table_.regions[0].offset = 2 * kMiB;
  EXPECT_THAT(Message(Parse().status()), HasSubstr("overlaps"));
  table_.regions[0].offset = 4096;
  EXPECT_THAT(Message(Parse().status()), HasSubstr("RegionTable[0].FileOffset"));
  table_.regions[0].offset = ~(kMiB - 1);
  EXPECT_THAT(Message(Parse().status()), HasSubstr("RegionTable[0].FileOffset"));
  table_.regions[0] = {kBatRegion, 3 * kMiB, 0, true};
  EXPECT_THAT(Message(Parse().status()), HasSubstr("RegionTable[0].Length"));
  table_.regions[0] = {kMetadataRegion, 3 * kMiB, kMiB, true};
  EXPECT_THAT(Message(Parse().status()), HasSubstr("the same as"));
  table_.regions.erase(table_.regions.begin());
  EXPECT_THAT(Message(Parse().status()), HasSubstr("no BAT"));
}

DiskParameters SomeParameters() {
  DiskParameters parameters;
  parameters.block_bytes = 32 * kMiB;
  parameters.size_bytes = 100 * kMiB;
  parameters.disk_id = Guid::Random();
  parameters.logical_sector_bytes = 512;
  parameters.physical_sector_bytes = 4096;
  return parameters;
}

// Parses a whole region as ImageFile does.
absl::StatusOr<DiskParameters> ParseRegion(const std::vector<uint8_t>& bytes) {
  ASSIGN_OR_RETURN(const MetadataTable table,
                   ParseMetadataTable(std::span(bytes).first<kMetadataTableBytes>(), kMiB, kMiB));
  DiskParameters parameters;
  for (const MetadataItem& item : table.items) {
    RETURN_IF_ERROR(ParseItem(item, std::span(bytes).subspan(item.offset, item.length),
                              kMiB + item.offset, parameters));
  }
  RETURN_IF_ERROR(CheckParameters(table, parameters, kMiB));
  return parameters;
}

TEST(MetadataTest, ParsesWhatItBuilds) {
  DiskParameters parameters = SomeParameters();
  parameters.leave_block_allocated = true;
  const auto parsed = ParseRegion(BuildMetadataRegion(parameters, {}));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->block_bytes, parameters.block_bytes);
  EXPECT_EQ(parsed->size_bytes, parameters.size_bytes);
  EXPECT_EQ(parsed->disk_id, parameters.disk_id);
  EXPECT_EQ(parsed->logical_sector_bytes, 512U);
  EXPECT_EQ(parsed->physical_sector_bytes, 4096U);
  EXPECT_TRUE(parsed->leave_block_allocated);
  EXPECT_FALSE(parsed->has_parent);
}

TEST(MetadataTest, NamesTheItemThatIsWrong) {
  // Where the fields are in what BuildMetadataRegion makes.
  constexpr size_t kItems = kMetadataTableBytes;
  struct Case {
    size_t at;
    uint32_t value;
    const char* message;
  };
  const Case cases[] = {
      {kItems, 3 << 20, "offset 1114112: FileParameters.BlockSize"},
      {kItems, 512 << 20, "FileParameters.BlockSize"},
      {kItems + 8, 100, "VirtualDiskSize"},
      {kItems + 12, 0xFFFFFFFF, "VirtualDiskSize"},
      {kItems + 32, 1024, "LogicalSectorSize"},
      {kItems + 40, 0, "PhysicalSectorSize"},
      {kItems + 4, 2, "ParentLocator"},  // HasParent, and no locator
      {32 + 16, 0, "MetadataTable[0].Offset"},
      {32 + 20, 4, "FileParameters"},
      {32 + 20, 2 << 20, "MetadataTable[0].Length"},
      {32 + 24, 5, "is required, but not known"},  // a user's item
      {64 + 16, kItems + 4, "overlaps"},
      {0, 0, "MetadataTable.Signature"},
      {8, 0xFFFF0000, "MetadataTable.EntryCount"},
  };
  for (const Case& wrong : cases) {
    std::vector<uint8_t> bytes = BuildMetadataRegion(SomeParameters(), {});
    StoreLe(bytes.data() + wrong.at, wrong.value);
    const auto parsed = ParseRegion(bytes);
    ASSERT_FALSE(parsed.ok()) << wrong.at;
    EXPECT_THAT(Message(parsed.status()), HasSubstr(wrong.message)) << wrong.at;
  }
}

TEST(BatTest, CountsAsTheSpecificationDoes) {
  for (const uint32_t sector : {512U, 4096U}) {
    for (const uint32_t block : {1U << 20, 32U << 20, 256U << 20}) {
      for (const uint64_t size : {uint64_t{sector}, uint64_t{5} << 30, uint64_t{64} << 40}) {
        for (const bool has_parent : {false, true}) {
          DiskParameters parameters = SomeParameters();
          parameters.logical_sector_bytes = sector;
          parameters.block_bytes = block;
          parameters.size_bytes = size;
          parameters.has_parent = has_parent;
          const BatLayout bat(kMiB, parameters);
          // 2.4, 2.5
          const uint64_t ratio = (uint64_t{1} << 23) * sector / block;
          const uint64_t payload = (size + block - 1) / block;
          const uint64_t chunks = (payload + ratio - 1) / ratio;
          EXPECT_EQ(bat.chunk_ratio(), ratio);
          EXPECT_EQ(bat.payload_blocks(), payload);
          EXPECT_EQ(bat.entries(),
                    has_parent ? chunks * (ratio + 1) : payload + (payload - 1) / ratio);
          for (const uint64_t number : {uint64_t{0}, payload / 2, payload - 1}) {
            const uint64_t index = bat.PayloadIndex(number);
            EXPECT_EQ(index, number + number / ratio);
            EXPECT_FALSE(bat.IsBitmapIndex(index));
            EXPECT_EQ(bat.BlockOf(index), number);
            EXPECT_TRUE(bat.IsBitmapIndex(bat.BitmapIndex(bat.ChunkOf(number))));
            EXPECT_GE(bat.BitmapIndex(bat.ChunkOf(number)), index);
          }
        }
      }
    }
  }
}

TEST(SectorBitmapTest, RunsAreThoseOfTheBits) {
  std::array<uint8_t, kPageBytes> page{};
  FillBits(page, 5, 70, true);
  FillBits(page, 64, 65, false);
  bool set = false;
  EXPECT_EQ(BitRun(page, 0, kBitsPerPage, set), 5U);
  EXPECT_FALSE(set);
  EXPECT_EQ(BitRun(page, 5, kBitsPerPage, set), 59U);
  EXPECT_TRUE(set);
  EXPECT_EQ(BitRun(page, 64, 65, set), 1U);
  EXPECT_FALSE(set);
  EXPECT_EQ(BitRun(page, 70, kBitsPerPage, set), kBitsPerPage - 70);
  EXPECT_EQ(BitRun(page, 10, 20, set), 10U);
  EXPECT_TRUE(AllBits(page, 5, 64, true));
  EXPECT_FALSE(AllBits(page, 5, 66, true));
  FillBits(page, 0, kBitsPerPage, true);
  EXPECT_TRUE(AllBits(page, 0, kBitsPerPage, true));
}

TEST(SpaceMapTest, FindsWhatNobodyClaimed) {
  SpaceMap space;
  const uint64_t far = uint64_t{100} << 40;
  EXPECT_TRUE(space.Claim(0, 3 * kMiB));
  EXPECT_TRUE(space.Claim(5 * kMiB, kMiB));
  EXPECT_TRUE(space.Claim(far, 256 * kMiB));
  EXPECT_FALSE(space.Claim(2 * kMiB, 2 * kMiB));
  EXPECT_TRUE(space.Claim(3 * kMiB, kMiB));
  EXPECT_EQ(space.FindFree(0, far).offset, 4 * kMiB);
  EXPECT_EQ(space.FindFree(0, far).length, kMiB);
  EXPECT_EQ(space.FindFree(5 * kMiB, far).offset, 6 * kMiB);
  EXPECT_EQ(space.FindFree(5 * kMiB, far).length, far - 6 * kMiB);
  EXPECT_EQ(space.FindFree(far, space.end()).length, 0U);
  EXPECT_EQ(space.end(), far + 256 * kMiB);
  EXPECT_EQ(space.claimed_bytes(), 261 * kMiB);
}

}  // namespace
}  // namespace bothy::disk::vhdx
