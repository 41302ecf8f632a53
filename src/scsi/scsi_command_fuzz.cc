// A hostile driver of a SCSI target: any CDBs with any buffers, task management, while units and
// media come and go, the disk fails, completes late and in any order, and the machine pauses.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for bytes written outside a command's buffers or into its data_out, for commands that end
// twice or never, for requests that a disk has to refuse, and for task management that never ends.
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "disk/testing/fake_disk.h"
#include "scsi/command_table.h"
#include "scsi/target.h"
#include "scsi/testing/test_command.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/log.h"
#include "support/testing/fuzz_input.h"

namespace bothy::scsi {
namespace {

constexpr size_t kCommands = 8;
constexpr std::array<uint16_t, 2> kLuns = {0, 5};

class Machine {
 public:
  Machine() {
    for (size_t i = 0; i < kLuns.size(); ++i) Attach(i, 0);
  }

  // Everything ends.
  void Finish() {
    Settle();
    CHECK(quiet_);
    target_.Resume();
    for (size_t i = 0; i < kLuns.size(); ++i) {
      if (taken_[i] != nullptr) Put(i, true);
    }
    Settle();
    for (const TestCommand& command : commands_) CHECK(command.done());
    for (size_t i = 0; i < kLuns.size(); ++i) {
      if (target_.Has(kLuns[i])) Detach(i);
    }
    CHECK(managing_ == 0 && detaching_ == 0 && taking_ == 0);
  }

  void Step(FuzzInput& input) {
    switch (input.Take<uint8_t>() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return Execute(input);
      case 5:
      case 6:
      case 7: {
        const size_t i = input.Take<uint8_t>() % kLuns.size();
        if (disks_[i] != nullptr) disks_[i]->Pump();
        return;
      }
      case 8:
      case 9:
        if (!posted_.empty()) RunPosted();
        return;
      case 10: {
        ++managing_;
        const auto function = static_cast<TaskFunction>(input.Take<uint8_t>() % 8);
        const uint16_t lun = Lun(input);
        return target_.Manage(function, lun, input.Take<uint8_t>() % 4,
                              [this](TaskResponse) { --managing_; });
      }
      case 11: {
        const size_t i = input.Take<uint8_t>() % kLuns.size();
        return target_.Has(kLuns[i]) ? Detach(i) : Attach(i, input.Take<uint8_t>());
      }
      case 12: {
        const size_t i = input.Take<uint8_t>() % kLuns.size();
        if (taken_[i] != nullptr) return Put(i, (input.Take<uint8_t>() & 1) != 0);
        return Take(i);
      }
      case 13:
        if (!quiet_) return;  // of the last one
        if (paused_) return Resume();
        paused_ = true;
        quiet_ = false;
        return target_.Quiesce([this] { quiet_ = true; });
      case 14:
        return target_.Reset();
      default: {
        // The next request of a disk fails.
        constexpr absl::StatusCode kCodes[] = {absl::StatusCode::kOk, absl::StatusCode::kDataLoss,
                                               absl::StatusCode::kInternal,
                                               absl::StatusCode::kResourceExhausted};
        failure_ = kCodes[input.Take<uint8_t>() % std::size(kCodes)];
      }
    }
  }

 private:
  // Mostly one that is there.
  static uint16_t Lun(FuzzInput& input) {
    const auto choice = input.Take<uint8_t>();
    return choice < 250 ? kLuns[choice % kLuns.size()] : static_cast<uint16_t>(choice * 77);
  }

  void Execute(FuzzInput& input) {
    TestCommand& command = commands_[input.Take<uint8_t>() % kCommands];
    if (!command.done()) return;
    TestCommand::Shape shape;
    shape.lun = Lun(input);
    shape.tag = input.Take<uint8_t>() % 4;
    shape.attribute = static_cast<TaskAttribute>(input.Take<uint8_t>() % 8 % 3);
    shape.cdb.resize(16);
    const auto choice = input.Take<uint8_t>();
    const std::span<const CommandEntry> all = CommandEntry::All();
    if (choice < 240) {
      // One that there is. Small numbers in most fields, so that they mean something.
      const CommandEntry& entry = all[choice % all.size()];
      const auto mask = input.Take<uint16_t>();
      for (size_t i = 1; i < entry.length; ++i) {
        if ((mask >> i & 1) != 0) shape.cdb[i] = input.Take<uint8_t>();
      }
      shape.cdb[0] = entry.opcode;
      if (entry.has_service_action()) shape.cdb[1] = static_cast<uint8_t>(entry.service_action);
    } else {
      for (uint8_t& byte : shape.cdb) byte = input.Take<uint8_t>();
    }
    const auto sizes = input.Take<uint8_t>();
    if ((sizes & 1) != 0) {
      shape.data_out.resize(input.Take<uint16_t>() % 0x2000);
      const size_t said = std::min<size_t>(shape.data_out.size(), input.Take<uint8_t>() % 64);
      for (size_t i = 0; i < said; ++i) shape.data_out[i] = input.Take<uint8_t>();
    }
    if ((sizes & 2) != 0) shape.data_in_bytes = input.Take<uint16_t>();
    shape.buffer_bytes = 1 + size_t{input.Take<uint8_t>()} * 40;
    command.Prepare(shape);
    target_.Execute(command);
  }

  std::unique_ptr<disk::FakeDisk> MakeDisk(uint8_t kind) {
    disk::FakeDisk::Options options;
    options.geometry.size_bytes = 1 << 20;
    options.geometry.logical_sector_bytes = (kind & 1) != 0 ? 4096 : 512;
    options.geometry.discard_granularity_bytes = (kind & 2) != 0 ? 0 : 65536;
    options.geometry.read_only = (kind & 12) == 12;
    options.immediate = (kind & 16) != 0;
    options.seed = kind >> 5;
    if ((kind & 0x60) == 0x60) {
      options.parent = std::make_unique<disk::FakeDisk>(
          disk::FakeDisk::Options{.geometry = {.size_bytes = 4096}, .path = "parent"});
    }
    auto disk = std::make_unique<disk::FakeDisk>(std::move(options));
    disk->storage().on_request = [this](const disk::Request&) {
      return absl::Status(std::exchange(failure_, absl::StatusCode::kOk), "as was to be");
    };
    return disk;
  }
  void Attach(size_t i, uint8_t kind) {
    auto disk = MakeDisk(kind);
    disks_[i] = disk.get();
    CHECK_OK(target_.Attach(kLuns[i], std::move(disk), {}));
  }
  void Detach(size_t i) {
    if (taking_ != 0) return Settle();
    CheckErrors();
    ++detaching_;
    // What is under way there has to end for it, and nobody else pumps that disk any more.
    disk::FakeDisk* const disk = std::exchange(disks_[i], nullptr);
    taken_[i].reset();
    target_.Detach(kLuns[i], [this](std::unique_ptr<disk::Disk>) { --detaching_; });
    while (disk != nullptr && detaching_ != 0 && disk->Pump()) {
    }
    RunPosted();
  }
  void Take(size_t i) {
    if (taking_ != 0 || !target_.Has(kLuns[i])) return;
    ++taking_;
    target_.TakeMedium(kLuns[i], [this, i](std::unique_ptr<disk::Disk> disk) {
      --taking_;
      disks_[i] = nullptr;
      taken_[i] = std::move(disk);
    });
  }
  void Put(size_t i, bool same) {
    std::unique_ptr<disk::Disk> disk = std::move(taken_[i]);
    if (!same) disk = MakeDisk(0);
    disks_[i] = static_cast<disk::FakeDisk*>(disk.get());
    target_.PutMedium(kLuns[i], std::move(disk), {},
                      same ? Target::MediumChange::kUnchanged : Target::MediumChange::kChanged);
  }
  void Resume() {
    paused_ = false;
    target_.Resume();
  }

  void RunPosted() {
    while (!posted_.empty()) {
      const std::function<void()> call = std::move(posted_.front());
      posted_.pop_front();
      call();
    }
  }
  void Settle() {
    for (bool progress = true; progress;) {
      progress = !posted_.empty();
      RunPosted();
      for (disk::FakeDisk* disk : disks_) {
        if (disk != nullptr) progress |= disk->Pump();
      }
    }
  }
  // A disk is never asked for what it hasn't got.
  void CheckErrors() const {
    for (const UnitSnapshot& unit : target_.Snapshot()) {
      if (!unit.last_error.has_value()) continue;
      CHECK(unit.last_error->text.find("as was to be") != std::string::npos);
    }
  }

  std::deque<std::function<void()>> posted_;
  Target target_{[this](std::function<void()> call) { posted_.push_back(std::move(call)); }};
  std::array<disk::FakeDisk*, kLuns.size()> disks_{};  // within the target
  std::array<std::unique_ptr<disk::Disk>, kLuns.size()> taken_;
  std::array<TestCommand, kCommands> commands_;
  absl::StatusCode failure_ = absl::StatusCode::kOk;
  int managing_ = 0;
  int detaching_ = 0;
  int taking_ = 0;
  bool paused_ = false;
  bool quiet_ = true;
};

}  // namespace
}  // namespace bothy::scsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool kQuiet = [] {
    bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
    return true;
  }();
  static_cast<void>(kQuiet);
  bothy::FuzzInput input({data, size});
  bothy::scsi::Machine machine;
  while (!input.empty()) machine.Step(input);
  machine.Finish();
  return 0;
}
