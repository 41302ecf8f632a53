// DiskLabTest: the fixture of tests that give the stock guest disks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "disk/testing/block_devices.h"
#include "tests/integration/disk_images.h"
#include "tests/integration/lab_test.h"

namespace bothy::integration {

class DiskLabTest : public LabTest {
 protected:
  static constexpr uint64_t kMiB = 1 << 20;

  [[nodiscard]] static uint64_t Rounds(uint64_t usual, uint64_t soak) {
    return Soaks() ? soak : usual;
  }

  // The guest with tools for disks, and its agent. One processor: the lab's emulation of several
  // isn't to be relied on (docs/lab.md).
  [[nodiscard]] wire::CreateVMRequest DiskGuest() const;
  [[nodiscard]] static wire::SCSIDisk ScsiDisk(const TestImage& image, uint32_t lun,
                                               uint32_t controller = 0);
  [[nodiscard]] static wire::VPMEMDisk PmemDisk(const TestImage& image);
  static void Add(wire::CreateVMRequest& request, const wire::SCSIDisk& disk);
  static void Add(wire::CreateVMRequest& request, const wire::VPMEMDisk& disk);

  absl::Status Modify(wire::ModifyType type, const wire::SCSIDisk& disk);
  absl::Status Modify(wire::ModifyType type, const wire::VPMEMDisk& disk);
  // Part of the state tree as JSON.
  [[nodiscard]] std::string Inspect(const std::string& query);

  // Runs a shell script in the guest, which must succeed; what it printed, without the last
  // newline. Both streams are shown when it fails.
  std::string InGuest(const std::string& script, absl::Duration timeout = kWork);
  // Waits in the guest until the shell condition holds, looking after each of its device events.
  void Await(const std::string& condition);
  // The node of the disk at a LUN of the guest's only adapter, once it can be opened.
  std::string AwaitDisk(uint32_t lun);
  void AwaitNoDisk(uint32_t lun);

  // Tears the VM down and ends the server, after which images are closed.
  void EndServer();

  // Much work on an emulated CPU of a busy machine.
  static constexpr absl::Duration kWork = absl::Seconds(300);

  Images images_;
};

// A block device of 64 MiB whose medium has an error of 1 MiB in the middle, until destroyed,
// before which the server has ended.
class FaultyMedium {
 public:
  static constexpr uint64_t kBytes = uint64_t{64} << 20;
  static constexpr uint64_t kBadOffset = kBytes / 2;

  explicit FaultyMedium(const TestFolder& folder);
  [[nodiscard]] TestImage image() const {
    return {.path = faulty_->path(), .kind = KindOf("raw.img")};
  }

 private:
  std::unique_ptr<disk::LoopDevice> loop_;
  std::unique_ptr<disk::FaultyDevice> faulty_;  // over it
};

// fio in the guest: random writes of mixed sizes on `target` ("--filename=... --size=..."), all of
// them read back and checked.
[[nodiscard]] std::string FioVerify(const std::string& target);

// For the guest's shell: prints what the first page of `device` says before its zeros; makes it a
// line and is done when that is durable.
[[nodiscard]] std::string ReadLine(const std::string& device);
[[nodiscard]] std::string WriteLine(const std::string& device, const std::string& line);

}  // namespace bothy::integration
