// What a guest writes to a disk of any format is what is in the image afterwards.
#include "absl/strings/str_cat.h"
#include "tests/guest/known_tree.h"
#include "tests/integration/disk_lab.h"

namespace bothy::integration {
namespace {

constexpr uint64_t kDiskMib = 64;
// The file system at the disk's beginning; what is behind it is written to without one.
constexpr uint64_t kFileSystemMib = 48;

// Checks and lists the tree on a disk: `fill DEVICE`, `sums DEVICE`.
constexpr char kFunctions[] = R"(
  mkdir -p /mnt
  fill() {
    mount -o discard "$1" /mnt
    cp -a /lib/modules /mnt/tree
    cp /bin/busybox /mnt/a && rm /mnt/a
    (cd /mnt && find . -type f ! -name SUMS -exec md5sum {} + >/tmp/sums && mv /tmp/sums SUMS)
    umount /mnt
  }
  sums() {
    mount -o ro "$1" /mnt
    (cd /mnt && md5sum -sc SUMS && md5sum <SUMS)
    umount /mnt
  }
)";

class DiskFormatsLabTest : public DiskLabTest {
 protected:
  // A disk with an ext4 file system that has a file of known contents.
  std::string MakeFileSystem() {
    std::string path = MakeFlat(folder_, "contents.img", kDiskMib * kMiB);
    const ProgramResult made =
        RunShell("mkdir '" + folder_ / "tree" + "'; seq 200000 >'" + folder_ / "tree/given" +
                 "'; mke2fs -q -t ext4 -b 4096 -d '" + folder_ / "tree" + "' '" + path + "' " +
                 std::to_string(kFileSystemMib) + "M");
    EXPECT_EQ(made.status, 0) << made.error_output;
    return path;
  }

  // Makes a file system on a disk, or checks the one that it has from its parent, and works on it;
  // the sum of all files' sums.
  std::string WorkOn(const std::string& device, bool has_file_system) {
    const std::string size = std::to_string(kFileSystemMib) + "M";
    return InGuest(kFunctions +
                   (has_file_system ? "mount -o ro " + device +
                                          " /mnt; seq 200000 | cmp - /mnt/given; umount /mnt; "
                                    : "mkfs.ext4 -q -F -b 4096 " + device + " " + size + "; ") +
                   FioVerify("--filename=" + device + " --offset=" + size + " --size=4M") +
                   "; fill " + device + "; e2fsck -fn " + device + " >/dev/null; sums " + device);
  }
};

TEST_F(DiskFormatsLabTest, EveryFormatKeepsWhatTheGuestWrites) {
  const std::string contents = MakeFileSystem();
  std::vector<TestImage> images;
  wire::CreateVMRequest request = DiskGuest();
  for (const ImageKind& kind : ImageKinds()) {
    const bool child = kind.variant == disk::tools::Variant::kDifferencing;
    images.push_back(images_.Make(folder_, kind, kDiskMib * kMiB, child ? contents : ""));
    Add(request, ScsiDisk(images.back(), static_cast<uint32_t>(images.size() - 1)));
  }
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  std::vector<std::string> sums;
  for (size_t lun = 0; lun < images.size(); ++lun) {
    SCOPED_TRACE(images[lun].kind.name);
    const std::string device = AwaitDisk(static_cast<uint32_t>(lun));
    EXPECT_EQ(InGuest("blockdev --getss " + device), std::to_string(images[lun].kind.sector_bytes));
    sums.push_back(WorkOn(device, images[lun].kind.variant == disk::tools::Variant::kDifferencing));
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

// A tree of the size of a kernel's source, when soaking, copied to each format; read again from the
// medium.
TEST_F(DiskFormatsLabTest, ATreeIsCopiedToEveryFormat) {
  const std::string files = absl::StrCat(Rounds(400, known_tree::kFilesOfAKernel));
  const uint64_t size = Rounds(64, 3072) * kMiB;
  const TestImage source = images_.Make(folder_, KindOf("raw.img"), size);
  wire::CreateVMRequest request = DiskGuest();
  Add(request, ScsiDisk(source, 0));
  ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
  const absl::Duration most = absl::Seconds(Rounds(300, 7200));
  EXPECT_EQ(InGuest("mkdir -p /from /to; mkfs.ext4 -q " + AwaitDisk(0) + "; mount " + AwaitDisk(0) +
                        " /from; make-tree /from " + files + "; check-tree /from " + files,
                    most),
            files + " files");
  for (const ImageKind& kind : ImageKinds()) {
    if (!Soaks() && kind.name != "dynamic.vhd" && kind.name != "dynamic.vhdx") continue;
    SCOPED_TRACE(kind.name);
    const TestFolder folder;
    const TestImage image = images_.Make(folder, kind, size);
    ASSERT_THAT(Modify(wire::ADD, ScsiDisk(image, 1)), IsOk());
    const std::string device = AwaitDisk(1);
    EXPECT_EQ(InGuest("mkfs.ext4 -q -b 4096 " + device + "; mount " + device +
                          " /to; cp -a /from/. /to; umount /to; mount -o ro " + device +
                          " /to; check-tree /to " + files + "; umount /to; e2fsck -fn " + device +
                          " >/dev/null",
                      most),
              files + " files");
    ASSERT_THAT(Modify(wire::REMOVE, ScsiDisk(image, 1)), IsOk());
    AwaitNoDisk(1);
    images_.ExpectClean(image);
  }
  EXPECT_EQ(Complaints(Facts()), "");
}

}  // namespace
}  // namespace bothy::integration
