// Images of all shapes under random load, with requests completing in any order.
// BOTHY_DISK_OPERATIONS says how many operations each shape gets, for long rounds.
#include <gtest/gtest.h>

#include "disk/testing/random_load.h"
#include "disk/vhdx/test_images.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kMiB = 1 << 20;
// A history grows with each operation, so that long rounds are many short ones.
constexpr uint64_t kOperationsOfARound = 6000;

class VhdxLoadTest : public testing::TestWithParam<Shape> {};

TEST_P(VhdxLoadTest, ReadsBackWhatWasWritten) {
  const uint64_t operations = OperationsOr(900);
  for (uint64_t done = 0; done < operations; done += kOperationsOfARound) {
    Shape shape = GetParam();
    shape.seed += done;
    TestImages images(shape);
    SectorHistory history = images.NewHistory();
    for (uint64_t session = 0; session < 3; ++session) {
      std::unique_ptr<Disk> disk = images.OpenImage();
      RandomLoad::Options options;
      options.seed = shape.seed * 10 + session;
      options.large_sectors = static_cast<uint32_t>(2 * shape.block_bytes / 512);
      options.large_sectors = std::min(options.large_sectors, 65536U);
      RandomLoad load(*disk, history, images.both(), options);
      ASSERT_EQ(load.Run(std::min(operations - done, kOperationsOfARound) / 3), "");
      ASSERT_TRUE(Await(Settle(*disk), images.both()).ok());
      ASSERT_EQ(images.image().waiting(), 0U);
      ASSERT_EQ(load.Verify(), "");
      ASSERT_TRUE(Await(disk->Close(), images.both()).ok());
    }
    std::unique_ptr<Disk> disk = images.OpenImage(true);
    RandomLoad load(*disk, history, images.both(), {});
    ASSERT_EQ(load.Verify(), "");
    ASSERT_TRUE(Await(disk->Close(), images.both()).ok());
  }
}

std::vector<Shape> AllShapes() {
  std::vector<Shape> shapes;
  uint64_t seed = 1;
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    for (const uint32_t sector : {512U, 4096U}) {
      for (const uint32_t block : {1U << 20, 2U << 20, 8U << 20}) {
        Shape shape = {.type = type, .block_bytes = block, .sector_bytes = sector};
        shape.disk_bytes = 9 * kMiB + 3 * 4096;
        shape.seed = seed++;
        // Few enough for pages to come and go.
        if (block == 1U << 20) shape.cache_bytes = 4096;
        shapes.push_back(shape);
      }
    }
  }
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(All, VhdxLoadTest, testing::ValuesIn(AllShapes()),
                         [](const auto& param) { return param.param.Name(); });

std::vector<Shape> LargeShapes() {
  std::vector<Shape> shapes;
  uint64_t seed = 100;
  for (const Type type : {Type::kDynamic, Type::kDifferencing}) {
    for (const uint32_t sector : {512U, 4096U}) {
      Shape shape = {.type = type, .block_bytes = 64U << 20, .sector_bytes = sector};
      shape.disk_bytes = 66 * kMiB;
      shape.seed = seed++;
      shapes.push_back(shape);
    }
  }
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(Large, VhdxLoadTest, testing::ValuesIn(LargeShapes()),
                         [](const auto& param) { return param.param.Name(); });

}  // namespace
}  // namespace bothy::disk::vhdx
