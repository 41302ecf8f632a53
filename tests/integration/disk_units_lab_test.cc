// SCSI units as a stock guest meets them: many, coming and going, changing.
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/integration/disk_lab.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

class DiskUnitsLabTest : public DiskLabTest {
 protected:
  // Something to do for LUN 0 until EndLoad; whatever goes wrong there is a failure then.
  void StartLoad() {
    const std::string device = AwaitDisk(0);
    auto load = agent_->Start("while test ! -e /tmp/enough; do " +
                              FioVerify("--filename=" + device + " --size=2M") + " || exit; done");
    ASSERT_TRUE(load.ok()) << load.status();
    load_ = *load;
  }
  void EndLoad() {
    (void)InGuest("touch /tmp/enough");
    const auto result = agent_->Finish(load_, kWork);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->status, 0) << result->error_output;
  }

  // Waits until the guest knows of another size, which it isn't told to look for.
  void AwaitSize(const std::string& device, uint64_t bytes) {
    Await("test $(cat /sys/block/" + device.substr(5) + "/size) -eq " +
          std::to_string(bytes / 512));
  }
  std::string FirstLine(const std::string& device) { return InGuest(ReadLine(device)); }
  void SetFirstLine(const std::string& device, const std::string& line) {
    (void)InGuest(WriteLine(device, line));
  }

 private:
  std::string load_;
};

TEST_F(DiskUnitsLabTest, AGuestSeesTwoHundredAndFiftySixAtOnce) {
  constexpr uint32_t kControllers = 4;
  constexpr uint32_t kLuns = 64;
  wire::CreateVMRequest request = DiskGuest();
  std::string expected;
  for (uint32_t controller = 0; controller < kControllers; ++controller) {
    for (uint32_t lun = 0; lun < kLuns; ++lun) {
      // Their sizes tell them apart.
      const uint64_t sectors = 2048 + controller * kLuns + lun;
      const std::string name = std::to_string(sectors);
      TestImage image{.path = MakeFlat(folder_, name, sectors * 512), .kind = KindOf("raw.img")};
      Add(request, ScsiDisk(image, lun, controller));
      expected += std::to_string(controller) + ":0:0:" + std::to_string(lun) + " " + name + "\n";
    }
  }
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  Await(
      "set -- /sys/block/sd*; test $# -eq 256 || exit; "
      "for disk; do true 2>/dev/null </dev/${disk##*/} || exit; done");
  // The adapters count from 0 in the order of their controllers, whatever the numbers begin with.
  // Each disk gets its own size as a line; no process is started for it.
  const std::string seen = InGuest(R"(
    first=
    for disk in $(ls -v /sys/class/scsi_disk); do
      for block in /sys/class/scsi_disk/$disk/device/block/*; do
        read -r sectors <$block/size
        host=${disk%%:*}
        first=${first:-$host}
        echo $((host - first)):${disk#*:} $sectors
        echo $sectors >/dev/${block##*/}
      done
    done
    sync)");
  EXPECT_EQ(seen + "\n", expected);
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  for (const std::string& name : folder_.Names()) {
    if (name.find('.') != std::string::npos) continue;  // a socket
    std::string line;
    std::getline(std::ifstream(folder_ / name), line);
    EXPECT_EQ(line, name);
  }
}

TEST_F(DiskUnitsLabTest, ComeAndGoWhileAnotherIsBusy) {
  const TestImage busy = images_.Make(folder_, KindOf("raw.img"), 16 * kMiB);
  const TestFolder other_folder;
  std::vector<TestImage> images;
  std::vector<std::string> lines;
  for (const char* const name : {"dynamic.vhdx", "dynamic.vhd", "raw.img"}) {
    images.push_back(images_.Make(other_folder, KindOf(name), (32 + images.size()) * kMiB));
    lines.emplace_back();
  }
  wire::CreateVMRequest request = DiskGuest();
  Add(request, ScsiDisk(busy, 0));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  ASSERT_NO_FATAL_FAILURE(StartLoad());

  const uint64_t rounds = Rounds(2, 1000);
  for (uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const size_t which = round % images.size();
    const auto lun = static_cast<uint32_t>(1 + round % 63);
    ASSERT_THAT(Modify(wire::ADD, ScsiDisk(images[which], lun)), IsOk());
    const std::string device = AwaitDisk(lun);
    const std::string next = "round-" + std::to_string(round);
    // What it had when it was removed last, on an adapter that has forgotten it since.
    EXPECT_EQ(InGuest(absl::StrCat("blockdev --getsize64 ", device, "; ", ReadLine(device), "; ",
                                   WriteLine(device, next))),
              std::to_string((32 + which) * kMiB) + lines[which]);
    lines[which] = "\n" + next;
    wire::SCSIDisk removal;
    removal.set_lun(lun);
    ASSERT_THAT(Modify(wire::REMOVE, removal), IsOk());
    AwaitNoDisk(lun);
  }
  EXPECT_THAT(Modify(wire::REMOVE, ScsiDisk(images[0], 1)),
              Fails(absl::StatusCode::kNotFound, HasSubstr("scsi_disk")));
  EXPECT_THAT(Modify(wire::ADD, ScsiDisk(images[0], 0)),
              Fails(absl::StatusCode::kAlreadyExists, HasSubstr("scsi_disk.lun")));

  // A controller that wasn't there.
  ASSERT_THAT(Modify(wire::ADD, ScsiDisk(images[0], 63, 3)), IsOk());
  SetFirstLine(AwaitDisk(63), "elsewhere");
  ASSERT_NO_FATAL_FAILURE(EndLoad());
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  for (const TestImage& image : images) images_.ExpectClean(image);
}

TEST_F(DiskUnitsLabTest, ChangeTheirMediumTheirSizeAndWhoMayWrite) {
  const TestFolder second_folder;
  const TestImage busy = images_.Make(folder_, KindOf("raw.img"), 16 * kMiB);
  const TestImage first = images_.Make(folder_, KindOf("dynamic.vhdx"), 32 * kMiB);
  const TestImage second = images_.Make(folder_, KindOf("dynamic.vhd"), 48 * kMiB);
  const TestImage growing = images_.Make(second_folder, KindOf("raw.img"), 32 * kMiB);
  wire::CreateVMRequest request = DiskGuest();
  Add(request, ScsiDisk(busy, 0));
  Add(request, ScsiDisk(first, 1));
  Add(request, ScsiDisk(growing, 2));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  ASSERT_NO_FATAL_FAILURE(StartLoad());
  const std::string device = AwaitDisk(1);

  // Another medium, and the first one again.
  SetFirstLine(device, "first");
  ASSERT_THAT(Modify(wire::UPDATE, ScsiDisk(second, 1)), IsOk());
  AwaitSize(device, 48 * kMiB);
  EXPECT_EQ(FirstLine(device), "");
  SetFirstLine(device, "second");
  ASSERT_THAT(Modify(wire::UPDATE, ScsiDisk(first, 1)), IsOk());
  AwaitSize(device, 32 * kMiB);
  EXPECT_EQ(FirstLine(device), "first");

  // One that the guest may only read.
  wire::SCSIDisk read_only = ScsiDisk(second, 1);
  read_only.set_read_only(true);
  ASSERT_THAT(Modify(wire::UPDATE, read_only), IsOk());
  AwaitSize(device, 48 * kMiB);
  EXPECT_EQ(FirstLine(device), "second");
  EXPECT_EQ(InGuest("blockdev --getro " + device + "; " + WriteLine(device, "third") +
                    " || echo refused"),
            "1\nrefused");
  EXPECT_EQ(FirstLine(device), "second");

  // A file that isn't there leaves the one that is.
  wire::SCSIDisk missing = ScsiDisk(second, 1);
  missing.set_host_path(folder_ / "missing.vhdx");
  EXPECT_THAT(Modify(wire::UPDATE, missing),
              Fails(absl::StatusCode::kNotFound, HasSubstr("missing.vhdx")));
  EXPECT_EQ(FirstLine(device), "second");

  // A file system grows with the file that it is in.
  const std::string grown = AwaitDisk(2);
  (void)InGuest("mkdir -p /mnt; mkfs.ext4 -q -b 4096 " + grown + "; mount " + grown +
                " /mnt; cp /bin/busybox /mnt");
  std::filesystem::resize_file(growing.path, 96 * kMiB);
  ASSERT_THAT(Modify(wire::UPDATE, ScsiDisk(growing, 2)), IsOk());
  AwaitSize(grown, 96 * kMiB);
  (void)InGuest("resize2fs " + grown +
                " >/dev/null; dd if=/dev/zero of=/mnt/more bs=1M count=64 "
                "2>/dev/null; cmp /bin/busybox /mnt/busybox; umount /mnt; e2fsck -fn " +
                grown + " >/dev/null");

  ASSERT_NO_FATAL_FAILURE(EndLoad());
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  images_.ExpectClean(first);
  images_.ExpectClean(second);
}

}  // namespace
}  // namespace bothy::integration
