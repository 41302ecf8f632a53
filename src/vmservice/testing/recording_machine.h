// RecordingMachine: a machine of tests whose changes of resources wait until the test ends them.
//
// Control thread, except the life cycle's calls, which do nothing.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "machine/machine.h"

namespace bothy::vmservice {

class RecordingMachine : public machine::Machine {
 public:
  // One call of ModifyScsiDisk, ModifyPmemDisk, ModifyNic or ModifySocket.
  struct Change {
    machine::Change change;
    std::optional<machine::ScsiDiskConfig> scsi;
    std::optional<machine::PmemDiskConfig> pmem;
    std::optional<machine::NicConfig> nic;
    std::optional<machine::SocketConfig> socket = {};
    std::stop_token stop;
    machine::ChangeDone done;
    // Ends a change that is stopped, as a machine does whose guest hasn't answered.
    std::unique_ptr<std::stop_callback<std::function<void()>>> on_stop;
  };
  std::vector<std::unique_ptr<Change>> changes;  // all there were
  // What becomes of changes at once; null: they wait.
  std::function<std::optional<absl::Status>(const Change&)> at_once;
  bool heeds_stop = true;  // a change that waits gives up when it is stopped

  absl::Status Resume() override { return absl::OkStatus(); }
  absl::Status Pause() override { return absl::OkStatus(); }
  absl::Status Restart() override { return absl::OkStatus(); }
  [[nodiscard]] machine::MachineStats Stats() const override { return {}; }
  uint64_t available_ram_bytes = 0;
  // What the guest does when it is asked for its memory; null: it says the same as before.
  std::function<void(std::function<void()> done)> on_question;
  void AskGuestMemory(std::function<void()> done) override {
    on_question != nullptr ? on_question(std::move(done)) : done();
  }
  void ModifyScsiDisk(machine::Change change, machine::ScsiDiskConfig disk, std::stop_token stop,
                      machine::ChangeDone done) override {
    Record({.change = change,
            .scsi = std::move(disk),
            .pmem = {},
            .nic = {},
            .stop = std::move(stop),
            .done = std::move(done),
            .on_stop = nullptr});
  }
  void ModifyPmemDisk(machine::Change change, machine::PmemDiskConfig disk, std::stop_token stop,
                      machine::ChangeDone done) override {
    Record({.change = change,
            .scsi = {},
            .pmem = std::move(disk),
            .nic = {},
            .stop = std::move(stop),
            .done = std::move(done),
            .on_stop = nullptr});
  }
  void ModifyNic(machine::Change change, machine::NicConfig nic, std::stop_token stop,
                 machine::ChangeDone done) override {
    Record({.change = change,
            .scsi = {},
            .pmem = {},
            .nic = std::move(nic),
            .stop = std::move(stop),
            .done = std::move(done),
            .on_stop = nullptr});
  }
  void ModifySocket(machine::Change change, machine::SocketConfig socket,
                    machine::ChangeDone done) override {
    Record({.change = change,
            .scsi = {},
            .pmem = {},
            .nic = {},
            .socket = std::move(socket),
            .stop = {},
            .done = std::move(done),
            .on_stop = nullptr});
  }
  void Inspect(inspect::Node& root) const override {
    root.Child("devices", [](inspect::Node& devices) { devices.Value("count", 3); });
  }
  void InspectStartup(inspect::Node& timings) const override { timings.Value("resume_ns", 7); }

  // Ends the change `index`, once.
  void End(size_t index, const absl::Status& status) {
    changes.at(index)->on_stop.reset();
    std::exchange(changes.at(index)->done, nullptr)(status);
  }
  [[nodiscard]] bool Waits(size_t index) const { return changes.at(index)->done != nullptr; }

 private:
  void Record(Change change) {
    changes.push_back(std::make_unique<Change>(std::move(change)));
    const size_t index = changes.size() - 1;
    if (at_once) {
      if (const auto status = at_once(*changes[index])) return End(index, *status);
    }
    if (!heeds_stop) return;
    changes[index]->on_stop = std::make_unique<std::stop_callback<std::function<void()>>>(
        changes[index]->stop, [this, index] {
          // The callback can't destroy itself; what it ends may be followed by others.
          std::exchange(changes[index]->done, nullptr)(absl::CancelledError("stopped"));
        });
  }
};

}  // namespace bothy::vmservice
