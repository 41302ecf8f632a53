// A commit of a differencing image fails half way; a write ends while the next one begins; then the
// host crashes. A sector has its old bytes or its new ones, and nothing else.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kBlock = kMinBlockBytes;
constexpr uint64_t kWritten = 8 * 512;
constexpr uint8_t kOld = 0xAA;
constexpr uint8_t kNew = 0x22;

class FailedCommitTest : public testing::Test {
 protected:
  void SetUp() override {
    const CreateOptions options = {
        .size_bytes = 4 * kBlock, .type = Type::kDynamic, .block_size_bytes = kBlock};
    ASSERT_TRUE(Await(Create(parent_, options), parent_).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(parent_), OpenOptions()), parent_);
    ASSERT_TRUE(disk.ok()) << disk.status();
    const std::vector<uint8_t> old(kBlock, kOld);
    ASSERT_TRUE(Await(WriteAt(**disk, 0, old), parent_).ok());
    ASSERT_TRUE(Await((*disk)->Close(), parent_).ok());
    parent_id_ = *(*disk)->linkage();
  }
  std::unique_ptr<Disk> OpenChild(Storage& storage, MemoryStorage& memory) {
    OpenOptions options;
    options.open_parent = [this](const ParentReference&) {
      OpenOptions of_parent;
      of_parent.read_only = true;
      return Open(std::make_unique<BorrowedStorage>(parent_), std::move(of_parent));
    };
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(storage), std::move(options)), memory);
    CHECK_OK(disk.status());
    return *std::move(disk);
  }

  MemoryStorage parent_{{.path = "parent.vhd", .immediate = true}};
  Guid parent_id_;
};

TEST_F(FailedCommitTest, SectorsAreOldOrNew) {
  for (uint64_t seed = 1; seed < 100 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    MemoryStorage memory({.path = "child.vhd", .seed = seed});
    CreateOptions create = {
        .size_bytes = 4 * kBlock, .type = Type::kDifferencing, .block_size_bytes = kBlock};
    create.parent.relative_path = "parent.vhd";
    create.parent.linkage = parent_id_;
    ASSERT_TRUE(Await(Create(memory, create), memory).ok());
    CrashRecorder recorder(memory);
    std::unique_ptr<Disk> disk = OpenChild(recorder, memory);
    const std::vector<uint8_t> first(512, 0x11);
    const std::vector<uint8_t> second(512, kNew);
    ASSERT_TRUE(Await(WriteAt(*disk, 0, first), memory).ok());
    // The block's data and bitmap are there, and so is its entry; whether for good nobody knows.
    int flushes = 0;
    const auto record = std::exchange(memory.on_request, nullptr);
    memory.on_request = [&](const Request& request) {
      return request.operation == Operation::kFlush && ++flushes == 2 ? absl::InternalError("EIO")
                                                                      : record(request);
    };
    ASSERT_FALSE(Await(Flush(*disk), memory).ok());
    memory.on_request = record;
    int ended = 0;
    Start(Flush(*disk), [&ended](const absl::Status&) { ++ended; });
    Start(WriteAt(*disk, kWritten, second), [&ended](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      ++ended;
    });
    while (ended < 2) ASSERT_TRUE(memory.Pump());
    for (size_t at = 0; at <= recorder.events(); ++at) {
      for (uint64_t fate = 1; fate < 8; ++fate) {
        MemoryStorage crashed({.path = "child.vhd", .immediate = true});
        recorder.Replay(at, fate, crashed);
        std::unique_ptr<Disk> after = OpenChild(crashed, crashed);
        std::array<uint8_t, 512> sector{};
        ASSERT_TRUE(Await(ReadAt(*after, kWritten, sector), crashed).ok());
        EXPECT_TRUE(sector[0] == kOld || sector[0] == kNew)
            << "after event " << at << ": " << int{sector[0]};
        ASSERT_TRUE(Await(after->Close(), crashed).ok());
      }
    }
    (void)Await(disk->Close(), memory);
  }
}

}  // namespace
}  // namespace bothy::disk::vhd1
