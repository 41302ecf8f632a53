// TargetTest: a target over fake disks, all on this thread.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "disk/testing/fake_disk.h"
#include "scsi/target.h"
#include "scsi/testing/test_command.h"
#include "support/endian.h"

namespace bothy::scsi {

inline constexpr uint64_t kTestDiskBytes = 1 << 20;
inline constexpr uint32_t kTestBlockBytes = 512;

inline disk::FakeDisk::Options TestDisk(std::string path = "/images/fake.img") {
  return {.geometry = {.size_bytes = kTestDiskBytes,
                       .logical_sector_bytes = kTestBlockBytes,
                       .physical_sector_bytes = 4096,
                       .discard_granularity_bytes = 4096},
          .path = std::move(path)};
}

// The bytes of a CDB: numbers of any size, big-endian.
class Cdb {
 public:
  Cdb(uint8_t opcode, size_t bytes) : bytes_(bytes) { bytes_[0] = opcode; }
  Cdb& Put8(size_t at, uint8_t value) {
    bytes_[at] = value;
    return *this;
  }
  Cdb& Put16(size_t at, uint16_t value) {
    StoreBe(&bytes_[at], value);
    return *this;
  }
  Cdb& Put32(size_t at, uint32_t value) {
    StoreBe(&bytes_[at], value);
    return *this;
  }
  Cdb& Put64(size_t at, uint64_t value) {
    StoreBe(&bytes_[at], value);
    return *this;
  }
  operator std::vector<uint8_t>() const { return bytes_; }  // NOLINT(google-explicit-constructor)

 private:
  std::vector<uint8_t> bytes_;
};

inline Cdb Read10(uint32_t lba, uint16_t blocks, uint8_t flags = 0) {
  return Cdb(0x28, 10).Put8(1, flags).Put32(2, lba).Put16(7, blocks);
}
inline Cdb Write10(uint32_t lba, uint16_t blocks, uint8_t flags = 0) {
  return Cdb(0x2A, 10).Put8(1, flags).Put32(2, lba).Put16(7, blocks);
}

// Bytes that are the same nowhere near each other.
inline std::vector<uint8_t> Pattern(size_t bytes, uint8_t seed = 1) {
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<uint8_t>(1 + (i * 7 + i / 256 * 13 + seed) % 255);
  }
  return data;
}

class TargetTest : public ::testing::Test {
 protected:
  ~TargetTest() override {
    target_.Resume();
    target_.Reset();
    Settle();
    for (uint16_t lun = 0; lun < kMaxLuns; ++lun) {
      if (target_.Has(lun)) Detach(lun);
    }
    Settle();
  }

  // A disk at `lun` whose power-on the guest has been told of.
  disk::FakeDisk& Attach(uint16_t lun, disk::FakeDisk::Options options = TestDisk(),
                         const LogicalUnitOptions& unit = {}) {
    disk::FakeDisk& disk = AttachFresh(lun, std::move(options), unit);
    EXPECT_EQ(Condition(Run({.lun = lun, .cdb = {0x00}})), kPowerOn);
    return disk;
  }
  disk::FakeDisk& AttachFresh(uint16_t lun, disk::FakeDisk::Options options = TestDisk(),
                              const LogicalUnitOptions& unit = {}) {
    auto disk = std::make_unique<disk::FakeDisk>(std::move(options));
    disk::FakeDisk& raw = *disk;
    EXPECT_TRUE(target_.Attach(lun, std::move(disk), unit).ok());
    disks_[lun] = &raw;
    return raw;
  }
  std::unique_ptr<disk::Disk> Detach(uint16_t lun) {
    std::unique_ptr<disk::Disk> result;
    target_.Detach(lun, [&](std::unique_ptr<disk::Disk> disk) { result = std::move(disk); });
    Settle();
    disks_.erase(lun);
    return result;
  }

  // Begins a command; it may have ended.
  TestCommand& Begin(const TestCommand::Shape& shape) {
    TestCommand& command = commands_.emplace_back();
    command.Prepare(shape);
    target_.Execute(command);
    return command;
  }
  // Runs one to its end.
  TestCommand& Run(const TestCommand::Shape& shape) {
    TestCommand& command = Begin(shape);
    Settle();
    EXPECT_TRUE(command.done());
    return command;
  }

  // One thing that waits: what was posted, else a request of a disk. False when nothing does.
  bool Step() {
    if (!posted_.empty()) {
      const std::function<void()> call = std::move(posted_.front());
      posted_.pop_front();
      call();
      return true;
    }
    for (auto& [lun, disk] : disks_) {
      if (disk->Pump()) return true;
    }
    return false;
  }
  void Settle() {
    while (Step()) {
    }
  }
  void RunPosted() {
    while (!posted_.empty()) Step();
  }

  // Key, ASC and ASCQ of the fixed format.
  static scsi::Condition Condition(const TestCommand& command) {
    const std::span<const uint8_t> sense = command.sense();
    if (command.status != Status::kCheckCondition || sense.size() < 14) return kNoCondition;
    return {static_cast<SenseKey>(sense[2] & 0x0F), sense[12], sense[13]};
  }
  static void ExpectGood(const TestCommand& command) {
    EXPECT_EQ(command.outcome, Outcome::kOk);
    EXPECT_EQ(command.status, Status::kGood);
  }
  // ILLEGAL REQUEST, INVALID FIELD IN CDB at that byte.
  static void ExpectInvalidField(const TestCommand& command, uint16_t byte) {
    ASSERT_EQ(Condition(command), kInvalidFieldInCdb);
    EXPECT_EQ(command.sense()[15] & 0xC0, 0xC0);
    EXPECT_EQ(LoadBe<uint16_t>(&command.sense()[16]), byte);
  }
  static void ExpectInvalidParameter(const TestCommand& command, uint16_t byte) {
    ASSERT_EQ(Condition(command), kInvalidFieldInParameters);
    EXPECT_EQ(command.sense()[15] & 0xC0, 0x80);
    EXPECT_EQ(LoadBe<uint16_t>(&command.sense()[16]), byte);
  }
  static std::vector<uint8_t> Peek(disk::FakeDisk& disk, uint64_t offset, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    disk.storage().Peek(offset, data);
    return data;
  }

  std::deque<std::function<void()>> posted_;
  Target target_{[this](std::function<void()> call) { posted_.push_back(std::move(call)); }};
  std::map<uint16_t, disk::FakeDisk*> disks_;
  std::deque<TestCommand> commands_;
};

}  // namespace bothy::scsi
