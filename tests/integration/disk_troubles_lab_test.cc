// What happens to a guest's disks when the host, or the server, has troubles.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/time/clock.h"
#include "support/unique_fd.h"
#include "tests/guest/known_writes.h"
#include "tests/integration/disk_lab.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

// A file system of the host that is soon full. Needs root.
class SmallFileSystem {
 public:
  explicit SmallFileSystem(const std::string& options) {
    EXPECT_EQ(::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options.c_str()), 0);
  }
  ~SmallFileSystem() { EXPECT_EQ(::umount2(folder_.path().c_str(), MNT_DETACH), 0); }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;

  void Remount(const std::string& options) const {
    EXPECT_EQ(::mount("tmpfs", folder_.path().c_str(), "tmpfs", MS_REMOUNT, options.c_str()), 0);
  }
  [[nodiscard]] const TestFolder& folder() const { return folder_; }

 private:
  TestFolder folder_;
};

class DiskTroublesLabTest : public DiskLabTest {
 protected:
  // Whether the guest can write `count` MiB to a disk.
  std::string Write(const std::string& device, int count) {
    return InGuest("yes | dd of=" + device +
                   " bs=1M iflag=fullblock oflag=direct conv=fsync count=" + std::to_string(count) +
                   " 2>/dev/null && echo written || echo failed");
  }
  std::string Read(const std::string& device, int mib) {
    return InGuest("dd if=" + device + " of=/dev/null bs=1M iflag=direct count=1 skip=" +
                   std::to_string(mib) + " 2>/dev/null && echo read || echo failed");
  }
};

TEST_F(DiskTroublesLabTest, AHostWithoutSpaceIsAnErrorOfTheWriteAndNoMore) {
  const SmallFileSystem small("size=16m");
  const TestImage sound = images_.Make(folder_, KindOf("raw.img"), 16 * kMiB);
  std::vector<TestImage> images;
  wire::CreateVMRequest request = DiskGuest();
  for (const char* const name : {"raw.img", "dynamic.vhd", "dynamic.vhdx"}) {
    images.push_back(images_.Make(small.folder(), KindOf(name), 64 * kMiB));
    Add(request, ScsiDisk(images.back(), static_cast<uint32_t>(images.size())));
  }
  Add(request, ScsiDisk(sound, 0));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  for (uint32_t lun = 1; lun <= images.size(); ++lun) {
    SCOPED_TRACE(images[lun - 1].kind.name);
    const std::string device = AwaitDisk(lun);
    EXPECT_EQ(Write(device, 32), "failed");
    EXPECT_THAT(Inspect(""), HasSubstr("No space left on device"));
    // What was written before that is there; so is the rest of the machine.
    EXPECT_EQ(Read(device, 0), "read");
    (void)InGuest(FioVerify("--filename=" + AwaitDisk(0) + " --size=2M"));
    small.Remount("size=128m");
    EXPECT_EQ(Write(device, 32), "written");
    small.Remount("size=" + std::to_string(16 + 33 * lun) + "m");
  }
  PowerOff();
  EndServer();
  for (const TestImage& image : images) images_.ExpectClean(image);
}

TEST_F(DiskTroublesLabTest, AFileThatIsTruncatedOrDeletedIsAnErrorOfThatDisk) {
  const TestImage sound = images_.Make(folder_, KindOf("dynamic.vhd"), 16 * kMiB);
  const TestImage truncated = images_.Make(folder_, KindOf("raw.img"), 32 * kMiB);
  const TestImage truncated_vhdx = images_.Make(folder_, KindOf("dynamic.vhdx"), 32 * kMiB);
  const TestFolder other_folder;
  const TestImage deleted = images_.Make(other_folder, KindOf("raw.img"), 32 * kMiB);
  wire::CreateVMRequest request = DiskGuest();
  Add(request, ScsiDisk(sound, 0));
  Add(request, ScsiDisk(truncated, 1));
  Add(request, ScsiDisk(truncated_vhdx, 2));
  Add(request, ScsiDisk(deleted, 3));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  for (uint32_t lun = 0; lun < 4; ++lun) EXPECT_EQ(Write(AwaitDisk(lun), 12), "written");

  std::filesystem::resize_file(truncated.path, 4 * kMiB);
  EXPECT_EQ(Read(AwaitDisk(1), 8), "failed");
  EXPECT_EQ(Read(AwaitDisk(1), 2), "read");
  EXPECT_THAT(Inspect(""), HasSubstr("truncated"));

  // Its first block begins before that and is 32 MiB long.
  std::filesystem::resize_file(truncated_vhdx.path, 6 * kMiB);
  EXPECT_EQ(Read(AwaitDisk(2), 11), "failed");

  // What is written to it now is gone with the server: nobody may believe it safe.
  std::filesystem::remove(deleted.path);
  EXPECT_EQ(Write(AwaitDisk(3), 2), "failed");
  EXPECT_THAT(Inspect(""), HasSubstr("deleted"));

  (void)InGuest(FioVerify("--filename=" + AwaitDisk(0) + " --size=4M"));
  PowerOff();
  EndServer();
  images_.ExpectClean(sound);
}

// Linux tries SYNCHRONIZE CACHE again after a medium error, and the host tells of what it lost but
// once: the second answer is the same as the first.
TEST_F(DiskTroublesLabTest, AFlushThatFailsIsToldToTheGuestForAsLongAsItAsks) {
  const FaultyMedium medium(folder_);
  const TestImage image = medium.image();
  wire::CreateVMRequest request = DiskGuest();
  Add(request, ScsiDisk(image, 0));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const std::string write = "dd if=/bin/busybox of=" + AwaitDisk(0) +
                            " bs=4096 count=1 oflag=direct conv=fsync 2>/dev/null seek=";
  EXPECT_EQ(InGuest(write + "0 && echo good"), "good");
  EXPECT_EQ(InGuest(write + std::to_string(FaultyMedium::kBadOffset / 4096) + " || echo failed"),
            "failed");
  EXPECT_EQ(InGuest(write + "0 || echo failed"), "failed");
  // The client is told, too, and can get rid of it all the same.
  EXPECT_THAT(Modify(wire::REMOVE, ScsiDisk(image, 0)).ToString(), HasSubstr("ask again"));
  EXPECT_THAT(Modify(wire::REMOVE, ScsiDisk(image, 0)), IsOk());
  PowerOff();
  EndServer();
}

// A file's time of change, and its contents.
struct Snapshot {
  explicit Snapshot(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    changed = {status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
    std::ifstream file(path, std::ios::binary);
    contents.assign(std::istreambuf_iterator<char>(file), {});
  }
  bool operator==(const Snapshot&) const = default;

  std::pair<int64_t, int64_t> changed;
  std::string contents;
};

TEST_F(DiskTroublesLabTest, NothingChangesInAFileWhileTheVmIsPaused) {
  std::vector<TestImage> images;
  wire::CreateVMRequest request = DiskGuest();
  for (const char* const name : {"raw.img", "dynamic.vhd", "dynamic.vhdx"}) {
    images.push_back(images_.Make(folder_, KindOf(name), 16 * kMiB));
    Add(request, ScsiDisk(images.back(), static_cast<uint32_t>(images.size() - 1)));
  }
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  std::vector<std::string> loads;
  for (uint32_t lun = 0; lun < images.size(); ++lun) {
    auto load = agent_->Start("while test ! -e /tmp/enough; do " +
                              FioVerify("--filename=" + AwaitDisk(lun) + " --size=4M --fsync=16") +
                              " || exit; done");
    ASSERT_TRUE(load.ok()) << load.status();
    loads.push_back(*load);
  }
  std::vector<Snapshot> last;
  const uint64_t rounds = Rounds(10, 200);
  for (uint64_t round = 0; round < rounds; ++round) {
    // The guest writes in between.
    if (!last.empty()) {
      const absl::Time give_up = absl::Now() + kWork;
      while (Snapshot(images[0].path) == last[0]) {
        ASSERT_LT(absl::Now(), give_up);
        ASSERT_THAT(agent_->Ping(kAnswer), IsOk());
      }
    }
    ASSERT_THAT(vm_->Pause(), IsOk());
    std::vector<Snapshot> before;
    for (const TestImage& image : images) before.emplace_back(image.path);
    for (size_t i = 0; i < images.size(); ++i) {
      EXPECT_TRUE(Snapshot(images[i].path) == before[i]) << images[i].path;
    }
    last = std::move(before);
    ASSERT_THAT(vm_->Resume(), IsOk());
  }
  (void)InGuest("touch /tmp/enough");
  for (const std::string& load : loads) {
    const auto result = agent_->Finish(load, kWork);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->status, 0) << result->error_output;
  }
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  for (const TestImage& image : images) images_.ExpectClean(image);
}

// The guest's `known-writes`, as far as the host knows.
struct Writer {
  TestImage image;
  std::string command;
  uint64_t durable = 0;  // the last record that the guest has said is
};

class DiskCrashLabTest : public DiskTroublesLabTest {
 protected:
  // Every record that the guest called durable is there, unless a later one has taken its place.
  static void ExpectDurable(const std::string& flat, uint64_t durable) {
    constexpr size_t kWords = known_writes::kRecordBytes / sizeof(uint64_t);
    const uint64_t slots = std::filesystem::file_size(flat) / known_writes::kRecordBytes;
    std::vector<uint64_t> newest(slots);
    for (uint64_t number = 1; number <= durable; ++number) {
      newest[known_writes::SlotOf(number, slots)] = number;
    }
    const UniqueFd file(::open(flat.c_str(), O_RDONLY | O_CLOEXEC));
    uint64_t later = 0;
    uint64_t torn = 0;
    for (uint64_t slot = 0; slot < slots; ++slot) {
      uint64_t record[kWords];
      ASSERT_EQ(
          ::pread(file.get(), record, sizeof record, static_cast<off_t>(slot * sizeof record)),
          static_cast<ssize_t>(sizeof record));
      const auto number = known_writes::NumberOf(record);
      if (!number.has_value()) {
        ++torn;
        continue;
      }
      if (*number != 0) {
        EXPECT_EQ(known_writes::SlotOf(*number, slots), slot);
      }
      EXPECT_GE(*number, newest[slot]) << "slot " << slot;
      later = std::max(later, *number);
    }
    // Only the one that wasn't durable yet can be there in part.
    EXPECT_LE(torn, 1U);
    EXPECT_GE(later, durable);
  }
};

TEST_F(DiskCrashLabTest, WhatAGuestMadeDurableSurvivesTheServersDeath) {
  constexpr uint64_t kDiskMib = 256;
  const uint64_t rounds = Rounds(1, 20);
  for (uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const TestFolder folder;
    std::vector<Writer> writers;
    wire::CreateVMRequest request = DiskGuest();
    for (const char* const name : {"raw.img", "dynamic.vhd", "differencing.vhd", "dynamic.vhdx",
                                   "differencing.vhdx", "dynamic-4096.vhdx"}) {
      writers.emplace_back().image = images_.Make(folder, KindOf(name), kDiskMib * kMiB);
      Add(request, ScsiDisk(writers.back().image, static_cast<uint32_t>(writers.size() - 1)));
    }
    ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
    for (uint32_t lun = 0; lun < writers.size(); ++lun) {
      const auto command = agent_->Start("exec known-writes " + AwaitDisk(lun));
      ASSERT_TRUE(command.ok()) << command.status();
      writers[lun].command = *command;
    }
    // All of them are well under way.
    const uint64_t enough = 150 + 97 * round;
    for (const Writer& writer : writers) {
      ASSERT_THAT(agent_->AwaitOutput(writer.command, "\n" + std::to_string(enough) + "\n", kWork),
                  IsOk());
    }
    server_->Signal(SIGKILL);
    (void)server_->AwaitEnd();
    for (Writer& writer : writers) {
      const auto printed = agent_->OutputToTheEnd(writer.command, kAnswer);
      ASSERT_TRUE(printed.ok()) << printed.status();
      const size_t end = printed->rfind('\n');
      ASSERT_NE(end, std::string::npos);
      const size_t begin = printed->rfind('\n', end - 1);
      writer.durable = std::stoull(printed->substr(begin + 1, end - begin - 1));
      EXPECT_GE(writer.durable, enough);
    }
    agent_.reset();
    vm_.reset();
    server_.reset();
    for (const Writer& writer : writers) {
      SCOPED_TRACE(writer.image.kind.name);
      // Opening it replays what there is to replay; afterwards nothing is wrong with it.
      images_.OpenAndClose(writer.image);
      images_.ExpectClean(writer.image);
      ExpectDurable(images_.Flatten(folder, writer.image), writer.durable);
    }
  }
}

}  // namespace
}  // namespace bothy::integration
