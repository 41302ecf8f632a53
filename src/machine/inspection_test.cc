// The state tree of real devices: every path at every depth, by many at once, while devices come
// and go and do I/O.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "machine/testing/devices_without_guest.h"
#include "machine/testing/scsi_driver.h"
#include "support/testing/test_folder.h"

namespace bothy::machine {
namespace {

using absl::StatusCode;
using inspect::Directory;
using inspect::Entry;
using inspect::Query;
using inspect::Value;

constexpr size_t kClients = 32;
constexpr int kRounds = 3;
constexpr uint32_t kDisks = 4;

class MachineInspectionTest : public ::testing::Test {
 protected:
  // The disk of a place: a raw file of its own.
  ScsiDiskConfig Disk(uint32_t controller, uint32_t lun) {
    const std::string name = "d" + std::to_string(controller) + "-" + std::to_string(lun);
    return {.controller = controller,
            .lun = lun,
            .image = {.path = folder_.Write(name, std::vector<uint8_t>(1 << 20)),
                      .type = ImageType::kPhysical}};
  }
  // Every path below `value`, itself included.
  static void Collect(const std::string& path, const Value& value, std::vector<std::string>* all) {
    all->push_back(path);
    const auto* const directory = std::get_if<Directory>(&value.AsVariant());
    if (directory == nullptr) return;
    for (const Entry& entry : directory->entries) {
      Collect(path.empty() ? entry.name : path + "/" + entry.name, entry.value, all);
    }
  }
  static size_t Depth(const Value& value) {
    const auto* const directory = std::get_if<Directory>(&value.AsVariant());
    if (directory == nullptr) return 0;
    size_t deepest = 0;
    for (const Entry& entry : directory->entries) deepest = std::max(deepest, Depth(entry.value));
    return deepest + 1;
  }

  const TestFolder folder_;
};

TEST_F(MachineInspectionTest, EveryPathAtEveryDepth) {
  MachineConfig config;
  for (uint32_t lun = 0; lun < kDisks; ++lun) config.scsi_disks.push_back(Disk(0, lun));
  config.pmem_disks.push_back({.image = Disk(3, 63).image});
  DevicesWithoutGuest devices(config);
  const auto whole = devices.Inspect({.path = {}, .levels = 24});
  ASSERT_TRUE(whole.ok()) << whole.status();
  std::vector<std::string> paths;
  Collect("", *whole, &paths);
  EXPECT_THAT(paths, ::testing::IsSupersetOf(
                         {"devices/scsi0/luns/3/disk/format", "devices/scsi0/virtio/queues/0/size",
                          "devices/scsi0/pci/msix/vectors", "devices/pmem0/window/dirty_bytes",
                          "pci/ports/1/occupied", "memory/layout/ecam/base"}));
  for (const std::string& path : paths) {
    size_t before = 0;
    for (uint32_t levels = 0;; ++levels) {
      const auto answer = devices.Inspect(*Query::Parse(path, levels));
      ASSERT_TRUE(answer.ok()) << path << ": " << answer.status();
      const size_t depth = Depth(*answer);
      EXPECT_LE(depth, levels + 1) << path;
      if (depth == before) break;  // one level more has shown nothing more
      before = depth;
    }
  }
}

// Looks at every path at every depth again and again, from as many threads.
class Lookers {
 public:
  Lookers(DevicesWithoutGuest& devices, const std::vector<std::string>& paths) {
    for (size_t looker = 0; looker < kClients; ++looker) {
      threads_.emplace_back([&devices, &paths, this, looker] {
        // Each begins elsewhere, so that at any time all of it is being looked at.
        size_t i = looker * paths.size() / kClients;
        for (uint32_t looks = 0; !over_ || looks < kLeastLooks; ++looks, ++i) {
          const std::string& path = paths[i % paths.size()];
          const uint32_t levels = (looks / 3 + static_cast<uint32_t>(looker)) % kDepths;
          const auto answer = devices.Inspect(*Query::Parse(path, levels));
          // What it leads through may just have gone, or be on its way.
          EXPECT_TRUE(answer.ok() || answer.status().code() == StatusCode::kNotFound ||
                      answer.status().code() == StatusCode::kUnavailable)
              << path << ": " << answer.status();
          found_ += answer.ok() ? 1 : 0;
        }
      });
    }
  }
  // How many looks have found what they asked for.
  uint64_t End() {
    over_ = true;
    for (std::thread& thread : threads_) thread.join();
    return found_;
  }

 private:
  static constexpr uint32_t kDepths = 8;
  static constexpr uint32_t kLeastLooks = 10;
  std::atomic<bool> over_ = false;
  std::atomic<uint64_t> found_ = 0;
  std::vector<std::thread> threads_;
};

TEST_F(MachineInspectionTest, ManyClientsWhileDevicesComeAndGoAndDoIo) {
  MachineConfig config;
  for (uint32_t lun = 0; lun < kDisks; ++lun) config.scsi_disks.push_back(Disk(0, lun));
  DevicesWithoutGuest devices(config);
  // Everything that there is at one time or another.
  const ScsiDiskConfig other = Disk(1, 0);
  const PmemDiskConfig memory{.image = Disk(3, 63).image};
  const NicConfig nic{.id = Guid::Random(),
                      .mac = net::MacAddress{{0x02, 0, 0, 0, 0, 1}},
                      .name = "card",
                      .backend = net::BackendConfig{.where = net::UserOptions{}, .limits = {}}};
  const auto scsi = [&](Change change, const ScsiDiskConfig& disk) {
    return devices.Change([&](PluggableDevices& all, ChangeDone done) {
      all.ModifyScsiDisk(change, disk, {}, std::move(done));
    });
  };
  const auto pmem = [&](Change change) {
    return devices.Change([&](PluggableDevices& all, ChangeDone done) {
      all.ModifyPmemDisk(change, memory, {}, std::move(done));
    });
  };
  const auto card = [&](Change change) {
    return devices.Change([&](PluggableDevices& all, ChangeDone done) {
      all.ModifyNic(change, nic, {}, std::move(done));
    });
  };
  const auto socket = [&](Change change) {
    return devices.Change([&](PluggableDevices& all, ChangeDone done) {
      all.ModifySocket(change, {.port = 52, .path = "/nobody"}, std::move(done));
    });
  };
  const auto all_come = [&] {
    EXPECT_EQ(scsi(Change::kAdd, other), absl::OkStatus());
    EXPECT_EQ(pmem(Change::kAdd), absl::OkStatus());
    EXPECT_EQ(card(Change::kAdd), absl::OkStatus());
    EXPECT_EQ(socket(Change::kAdd), absl::OkStatus());
  };
  const auto all_go = [&] {
    EXPECT_EQ(scsi(Change::kRemove, other), absl::OkStatus());
    EXPECT_EQ(pmem(Change::kRemove), absl::OkStatus());
    EXPECT_EQ(card(Change::kRemove), absl::OkStatus());
    EXPECT_EQ(socket(Change::kRemove), absl::OkStatus());
  };
  all_come();
  std::vector<std::string> paths;
  Collect("", *devices.Inspect({.path = {}, .levels = 24}), &paths);
  EXPECT_THAT(
      paths, ::testing::IsSupersetOf({"devices/scsi1/luns/0/disk/format", "devices/pmem0/window",
                                      "devices/net0/card", "devices/vsock0/sockets/listeners/52"}));

  Lookers lookers(devices, paths);
  std::atomic<bool> over = false;
  uint64_t reads = 0;
  std::thread io([&] {
    ScsiDriver driver(devices.memory(), devices.mmio(), devices.vm(), 0x10'0000);
    for (uint8_t lun = 0; !over || reads < kDisks; lun = (lun + 1) % kDisks) {
      // Others find that the disk has just gone, or that it is another than before.
      if (driver.ReadBlock(lun) == uint8_t{0}) ++reads;
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    all_go();
    for (const ScsiDiskConfig& disk : config.scsi_disks) {
      EXPECT_EQ(scsi(Change::kRemove, disk), absl::OkStatus());
      EXPECT_EQ(scsi(Change::kAdd, disk), absl::OkStatus());
      EXPECT_EQ(scsi(Change::kUpdate, disk), absl::OkStatus());
    }
    all_come();
  }
  over = true;
  io.join();
  EXPECT_GE(lookers.End(), uint64_t{kClients});
  EXPECT_GE(reads, uint64_t{kDisks});
}

}  // namespace
}  // namespace bothy::machine
