// Persistent memory as a stock guest meets it.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/integration/disk_lab.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

class PmemLabTest : public DiskLabTest {
 protected:
  // The node of the device of that size, once it is there.
  std::string AwaitPmem(uint64_t bytes) {
    Await(Find(bytes));
    return InGuest("path=$(" + Find(bytes) + "); path=${path%/size}; echo /dev/${path##*/}");
  }
  void AwaitNoPmem(uint64_t bytes) { Await("! " + Find(bytes)); }

  // A tree on a file system with and without DAX: what is written one way is read the other way.
  // The sum of all files' sums.
  std::string WorkOn(const std::string& device) {
    return InGuest("device=" + device + R"(
      mkdir -p /mnt
      mkfs.ext4 -q -F -b 4096 $device
      mount -o dax $device /mnt
      grep -q ' /mnt ext4 .*dax' /proc/mounts
      cp -a /lib/modules /mnt/tree
      fio --name=map --ioengine=mmap --directory=/mnt --rw=randwrite --bs=4k --size=2M --fsync=64 \
        --verify=crc32c --verify_fatal=1 --minimal >/dev/null
      (cd /mnt && find . -type f -exec md5sum {} + >/tmp/sums && cp /tmp/sums SUMS)
      umount /mnt

      mount $device /mnt
      (cd /mnt && md5sum -sc SUMS)
      cp /bin/busybox /mnt/busybox
      (cd /mnt && md5sum ./busybox >>SUMS)
      umount /mnt

      mount -o dax,ro $device /mnt
      (cd /mnt && md5sum -sc SUMS && md5sum <SUMS)
      umount /mnt
      e2fsck -fn $device >/dev/null)");
  }

 private:
  static std::string Find(uint64_t bytes) {
    return "grep -lx " + std::to_string(bytes / 512) + " /sys/block/pmem*/size 2>/dev/null";
  }
};

TEST_F(PmemLabTest, EveryFormatIsMemoryWithAndWithoutDax) {
  std::vector<TestImage> images;
  wire::CreateVMRequest request = DiskGuest();
  for (const char* const name :
       {"raw.img", "fixed.vhd", "dynamic.vhd", "fixed.vhdx", "dynamic.vhdx", "differencing.vhdx"}) {
    // Their sizes tell them apart.
    images.push_back(images_.Make(folder_, KindOf(name), (64 + 2 * images.size()) * kMiB));
    Add(request, PmemDisk(images.back()));
  }
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  std::vector<std::string> sums;
  for (size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE(images[i].kind.name);
    sums.push_back(WorkOn(AwaitPmem((64 + 2 * i) * kMiB)));
  }
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  for (size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE(images[i].kind.name);
    images_.ExpectClean(images[i]);
    EXPECT_EQ(SumsOfTree(images_.Flatten(folder_, images[i])), sums[i]);
  }
}

TEST_F(PmemLabTest, AFileThatIsTruncatedFailsFlushesAndTheVmGoesOn) {
  const TestImage image = images_.Make(folder_, KindOf("raw.img"), 64 * kMiB);
  const TestImage other = images_.Make(folder_, KindOf("fixed.vhd"), 66 * kMiB);
  wire::CreateVMRequest request = DiskGuest();
  Add(request, PmemDisk(image));
  Add(request, PmemDisk(other));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const std::string device = AwaitPmem(64 * kMiB);
  (void)InGuest("dd if=/bin/busybox of=" + device + " bs=4096 seek=8192 conv=fsync 2>/dev/null");
  std::filesystem::resize_file(image.path, 16 * kMiB);
  // A vCPU that touches what isn't there, by loads and by stores; the flush says so.
  EXPECT_EQ(InGuest("dd if=" + device +
                    " bs=4096 skip=8192 count=1 iflag=direct 2>/dev/null | "
                    "tr -d '\\0' | wc -c; "
                    "dd if=/bin/busybox of=" +
                    device + " bs=4096 seek=12288 count=1 conv=fsync 2>/dev/null || echo failed"),
            "0\nfailed");
  EXPECT_THAT(Inspect("devices/pmem0"), HasSubstr("truncated"));
  // The other one's file is mapped as it was, and its flushes are fine.
  (void)InGuest("dd if=/bin/busybox of=" + AwaitPmem(66 * kMiB) +
                " bs=4096 count=4 conv=fsync 2>/dev/null");
  PowerOff();
  EndServer();
  EXPECT_EQ(std::filesystem::file_size(image.path), 16 * kMiB);
  images_.ExpectClean(other);
}

// Nothing tells of a medium's error but the access itself, which KVM keeps for itself.
TEST_F(PmemLabTest, AMediumsErrorReadsAsZeroAndFailsFlushesAndTheVmGoesOn) {
  const FaultyMedium medium(folder_);
  const TestImage image = medium.image();
  wire::CreateVMRequest request = DiskGuest();
  Add(request, PmemDisk(image));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const std::string device = AwaitPmem(64 * kMiB);
  const std::string read = "dd if=" + device + " bs=4096 count=1 iflag=direct 2>/dev/null skip=";
  const std::string write = "dd if=/bin/busybox of=" + device + " bs=4096 count=1 conv=fsync ";
  EXPECT_EQ(InGuest(write + "seek=16 2>/dev/null; " + read + "16 | cmp -n 4096 - /bin/busybox"),
            "");
  EXPECT_EQ(
      InGuest(read + std::to_string(FaultyMedium::kBadOffset / 4096) + " | tr -d '\\0' | wc -c"),
      "0");
  EXPECT_EQ(InGuest(write + "seek=16 2>/dev/null || echo failed"), "failed");
  EXPECT_THAT(Inspect("devices/pmem0"), HasSubstr("can't be read"));
  // What could be read still can.
  EXPECT_EQ(InGuest(read + "16 | cmp -n 4096 - /bin/busybox"), "");
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
}

// A driver that puts the device's queue into the device's own memory: pages that it fills itself.
TEST_F(PmemLabTest, AQueueInItsOwnMemoryHangsNobody) {
  const TestImage image = images_.Make(folder_, KindOf("raw.img"), 64 * kMiB);
  wire::CreateVMRequest request = DiskGuest();
  Add(request, PmemDisk(image));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  (void)AwaitPmem(64 * kMiB);
  // By the registers of virtio 1.2, 4.1.4.3: reset, features, a queue whose three rings are 32 MiB
  // into the memory, whose address is in the device's configuration; DRIVER_OK. Bit 6 of the status
  // is DEVICE_NEEDS_RESET.
  EXPECT_EQ(InGuest(R"(
    for d in /sys/bus/pci/devices/*; do if [ $(cat $d/device) = 0x105b ]; then p=$d; fi; done
    echo ${p##*/} >/sys/bus/pci/drivers/virtio-pci/unbind
    echo 1 >$p/enable
    bar=$(head -n 1 $p/resource | cut -d' ' -f1)
    register() { where=$(printf 0x%x $((bar + $1))); shift; busybox devmem $where "$@"; }
    low=$(register 0x2000 32); high=$(register 0x2004 32)
    for status in 0 1 3; do register 0x14 8 $status; done
    register 0x08 32 1; register 0x0c 32 1; register 0x14 8 11
    register 0x16 16 0
    for ring in 0x20 0x28 0x30; do
      register $ring 32 $(printf 0x%x $((low + 0x2000000)))
      register $((ring + 4)) 32 $high
    done
    register 0x1c 16 1
    register 0x14 8 15
    echo $(($(register 0x14 8) & 64)))"),
            "64");
  EXPECT_THAT(vm_->Pause(), IsOk());
  EXPECT_THAT(vm_->Resume(), IsOk());
  PowerOff();
  EndServer();
  images_.ExpectClean(image);
}

TEST_F(PmemLabTest, ComesAndGoesWhileAnotherIsBusy) {
  const TestFolder other_folder;
  const TestImage busy = images_.Make(folder_, KindOf("raw.img"), 64 * kMiB);
  const std::vector<TestImage> images = {
      images_.Make(other_folder, KindOf("raw.img"), 96 * kMiB),
      images_.Make(other_folder, KindOf("dynamic.vhdx"), 98 * kMiB)};
  wire::CreateVMRequest request = DiskGuest();
  Add(request, PmemDisk(busy));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const std::string device = AwaitPmem(64 * kMiB);
  const auto load =
      agent_->Start("while test ! -e /tmp/enough; do " +
                    FioVerify("--filename=" + device + " --size=4M") + " || exit; done");
  ASSERT_TRUE(load.ok()) << load.status();

  const uint64_t rounds = Rounds(5, 200);
  std::vector<std::string> lines(images.size());
  for (uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const size_t which = round % images.size();
    const uint64_t bytes = (96 + 2 * which) * kMiB;
    ASSERT_THAT(Modify(wire::ADD, PmemDisk(images[which])), IsOk());
    const std::string added = AwaitPmem(bytes);
    const std::string next = "round-" + std::to_string(round);
    // What it had when it was removed last.
    EXPECT_EQ(InGuest(ReadLine(added) + "; " + WriteLine(added, next)), lines[which]);
    lines[which] = next;
    wire::VPMEMDisk removal;
    removal.set_host_path(images[which].path);
    removal.set_type(images[which].wire_type());
    ASSERT_THAT(Modify(wire::REMOVE, removal), IsOk());
    AwaitNoPmem(bytes);
  }
  EXPECT_THAT(Modify(wire::REMOVE, PmemDisk(images[0])),
              Fails(absl::StatusCode::kNotFound, HasSubstr("vpmem_disk")));
  EXPECT_THAT(Modify(wire::ADD, PmemDisk(busy)),
              Fails(absl::StatusCode::kAlreadyExists, HasSubstr("vpmem_disk")));
  (void)InGuest("touch /tmp/enough");
  const auto result = agent_->Finish(*load, kWork);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 0) << result->error_output;
  EXPECT_EQ(Complaints(Facts()), "");
  PowerOff();
  EndServer();
  for (const TestImage& image : images) images_.ExpectClean(image);
}

}  // namespace
}  // namespace bothy::integration
