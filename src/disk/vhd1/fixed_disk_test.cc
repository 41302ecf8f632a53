#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "disk/testing/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

// The host tells one flush of the file only; the guest may wait for the other one.
TEST(FixedDiskTest, AFlushThatFailsFailsAllThatAreInFlight) {
  MemoryStorage memory;
  const CreateOptions options = {.size_bytes = 1 << 20, .type = Type::kFixed};
  ASSERT_TRUE(Await(Create(memory, options), memory).ok());
  auto disk = Await(Open(std::make_unique<BorrowedStorage>(memory), OpenOptions()), memory);
  ASSERT_TRUE(disk.ok()) << disk.status();
  int flushes = 0;
  memory.on_request = [&flushes](const Request& request) {
    if (request.operation != Operation::kFlush) return absl::OkStatus();
    return flushes++ == 0 ? absl::DataLossError("EIO") : absl::OkStatus();
  };
  std::vector<absl::Status> told;
  for (int i = 0; i < 3; ++i) {
    Start(Flush(**disk), [&told](absl::Status status) { told.push_back(std::move(status)); });
  }
  while (memory.Pump()) {
  }
  ASSERT_EQ(told.size(), 3U);
  for (const absl::Status& status : told) EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(flushes, 2);
  EXPECT_TRUE(Await(Flush(**disk), memory).ok());
  EXPECT_TRUE(Await((*disk)->Close(), memory).ok());
}

}  // namespace
}  // namespace bothy::disk::vhd1
