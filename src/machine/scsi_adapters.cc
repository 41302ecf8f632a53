#include "machine/scsi_adapters.h"

#include <algorithm>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "machine/disk_image.h"
#include "scsi/target.h"
#include "support/check.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "virtio/pci/pci_device.h"
#include "virtio/scsi/scsi_controller.h"

namespace bothy::machine {
namespace {

using virtio::EventQueue;
using virtio::ScsiController;

constexpr uint32_t kClassScsi = 0x01'0000;
// How long an addition or an update waits for the guest to have looked: it is true all the same.
constexpr std::chrono::seconds kGuestLooks{5};
// How long a removal waits for the guest to let go when the caller has set no deadline.
constexpr std::chrono::seconds kGuestLetsGo{30};

// Runs `begin` on the loop and waits for the value that it passes on.
template <typename T>
T Await(IoLoop& loop, const std::function<void(std::function<void(T)>)>& begin) {
  std::promise<T> promise;
  loop.Post([&] { begin([&promise](T value) { promise.set_value(std::move(value)); }); });
  return promise.get_future().get();
}

}  // namespace

class ScsiAdapters::Adapter {
 public:
  static absl::StatusOr<std::unique_ptr<Adapter>> Create(uint32_t number, const DeviceHost& host) {
    auto adapter = std::unique_ptr<Adapter>(new Adapter(number, host));
    ASSIGN_OR_RETURN(adapter->io_, IoThread::Create("io-" + adapter->name_, {}));
    virtio::ScsiControllerOptions options;
    options.name = adapter->name_;
    options.request_queues = static_cast<uint16_t>(
        std::clamp<uint32_t>(host.processors, 1, virtio::kMaxScsiRequestQueues));
    adapter->target_ = std::make_unique<scsi::Target>(
        [&loop = adapter->loop()](std::function<void()> call) { loop.Post(std::move(call)); });
    adapter->controller_ =
        std::make_unique<ScsiController>(options, *adapter->target_, adapter->loop());
    ASSIGN_OR_RETURN(adapter->function_,
                     virtio::PciDevice::Create(*adapter->controller_, kClassScsi, adapter->loop(),
                                               host.memory, host.pci.endpoint_host()));
    return adapter;
  }

  ~Adapter() {
    function_.reset();
    if (io_ == nullptr) return;
    for (auto& [lun, image] : images_) {
      const absl::Status status = Await<absl::Status>(loop(), [&, at = lun](auto done) {
        target_->Detach(at,
                        [done](std::unique_ptr<disk::Disk> disk) { Close(std::move(disk), done); });
      });
      if (!status.ok())
        LogError(name_, absl::StrCat("closing LUN ", lun, ": ", std::string(status.message())));
    }
    loop().PostAndWait([this] {
      controller_.reset();
      target_.reset();
    });
  }

  // Shows the function to the guest.
  absl::Status Plug(bool hot) {
    host_.units.Add(function_->registers());
    absl::Status status;
    if (hot) {
      const absl::StatusOr<pci::RootPort*> port = host_.pci.FreePort();
      status = port.ok() ? host_.pci.Plug(**port, function_->endpoint()) : port.status();
    } else {
      status = host_.pci.AddIntegrated(function_->endpoint());
    }
    if (!status.ok()) host_.units.Remove(function_->registers());
    return status;
  }

  [[nodiscard]] IoLoop& loop() { return io_->loop(); }

  // Opens an image on the adapter's thread, where `done` is called.
  void Open(const ImageConfig& image,
            std::function<void(absl::StatusOr<std::unique_ptr<disk::Disk>>)> done) {
    loop().Post([this, image, done = std::move(done)] {
      Start(OpenDisk(loop(), image), [done](absl::StatusOr<std::unique_ptr<disk::Disk>> disk) {
        absl::Status status = disk.ok() ? scsi::CheckUnit(**disk, {}) : absl::OkStatus();
        if (!status.ok()) disk = std::move(status);
        done(std::move(disk));
      });
    });
  }
  // On the adapter's thread.
  void Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk) {
    CHECK_OK(target_->Attach(lun, std::move(disk), {}));
  }
  static void Close(std::unique_ptr<disk::Disk> disk, std::function<void(absl::Status)> done) {
    auto shared = std::make_shared<std::unique_ptr<disk::Disk>>(std::move(disk));
    Start((*shared)->Close(), [shared, done = std::move(done)](absl::Status status) {
      shared->reset();
      done(std::move(status));
    });
  }

  void Add(uint16_t lun, const ImageConfig& image, const std::stop_token& stop,
           const ChangeDone& done);
  void Remove(uint16_t lun, const std::stop_token& stop, const ChangeDone& done);
  void Update(uint16_t lun, const ImageConfig& image, const std::stop_token& stop,
              const ChangeDone& done);

  void Inspect(inspect::Node& node) const;

  // By LUN; on the thread of `changes` once the machine runs.
  std::map<uint16_t, ImageConfig> images_;

 private:
  Adapter(uint32_t number, const DeviceHost& host)
      : name_(absl::StrCat("scsi", number)), host_(host) {}

  void OnChanges(std::function<void()> task) { host_.changes.Post(std::move(task)); }

  // Tells the guest, and waits for it within `limit`, or not at all while it is paused. `done` is
  // called on the thread of `changes`.
  using Outcome = EventQueue::Outcome;
  void Announce(ScsiController::Change change, uint16_t lun, std::chrono::seconds limit,
                std::stop_token stop, const std::function<void(Outcome)>& done);
  [[nodiscard]] absl::Status TellOfLoss(uint16_t lun, const absl::Status& flushed);
  void CloseRemoved(uint16_t lun, const ChangeDone& done);
  void Reopen(uint16_t lun, const ImageConfig& image, const ChangeDone& done);
  void ReopenFlushed(uint16_t lun, std::unique_ptr<disk::Disk> old, const ImageConfig& image,
                     const ImageConfig& before, const ChangeDone& done);
  void Swap(uint16_t lun, std::unique_ptr<disk::Disk> disk, const ImageConfig& image,
            const std::stop_token& stop, const ChangeDone& done);
  void Refresh(uint16_t lun, const std::stop_token& stop, const ChangeDone& done);

  const std::string name_;
  const DeviceHost host_;
  std::unique_ptr<IoThread> io_;
  std::unique_ptr<scsi::Target> target_;        // on the adapter's thread
  std::unique_ptr<ScsiController> controller_;  // on the adapter's thread
  // Units whose client knows that the host lost something of them; on the adapter's thread.
  std::set<uint16_t> loss_told_;
  std::unique_ptr<virtio::PciDevice> function_;
};

void ScsiAdapters::Adapter::Announce(ScsiController::Change change, uint16_t lun,
                                     std::chrono::seconds limit, std::stop_token stop,
                                     const std::function<void(Outcome)>& done) {
  struct Wait {
    explicit Wait(EventLoop& loop) : timer(loop.context()) {}
    asio::steady_timer timer;
    std::optional<std::stop_callback<std::function<void()>>> on_stop;
    uint64_t id = 0;  // on the adapter's thread
  };
  const bool waits = host_.units.running();
  auto wait = std::make_shared<Wait>(host_.changes);
  loop().Post([this, change, lun, wait, waits, done] {
    wait->id = controller_->Announce(change, lun, [this, wait, waits, done](Outcome outcome) {
      if (!waits) return;
      OnChanges([wait, done, outcome] {
        wait->timer.cancel();
        wait->on_stop.reset();
        done(outcome);
      });
    });
  });
  // A guest that is paused hears of it when it goes on.
  if (!waits) return done(Outcome::kNoDriver);
  const auto give_up = [this, wait] {
    loop().Post([this, wait] { controller_->CancelAnnounce(wait->id); });
  };
  wait->timer.expires_after(limit);
  wait->timer.async_wait([give_up](const asio::error_code& error) {
    if (!error) give_up();
  });
  wait->on_stop.emplace(std::move(stop), give_up);
}

void ScsiAdapters::Adapter::Add(uint16_t lun, const ImageConfig& image, const std::stop_token& stop,
                                const ChangeDone& done) {
  if (const auto taken = images_.find(lun); taken != images_.end()) {
    return done(absl::AlreadyExistsError(
        absl::StrCat("scsi_disk.lun: ", name_, " has ", taken->second.path, " at LUN ", lun)));
  }
  Open(image, [this, lun, image, stop, done](absl::StatusOr<std::unique_ptr<disk::Disk>> disk) {
    if (!disk.ok()) {
      return OnChanges(
          [done, status = WithContext(disk.status(), "scsi_disk.host_path")] { done(status); });
    }
    if (stop.stop_requested()) {
      return Close(*std::move(disk), [this, done](const absl::Status&) {
        OnChanges([done] { done(absl::CancelledError("the addition was given up")); });
      });
    }
    Attach(lun, *std::move(disk));
    OnChanges([this, lun, image, stop, done] {
      images_[lun] = image;
      Announce(ScsiController::Change::kAdded, lun, kGuestLooks, stop,
               [done](Outcome) { done(absl::OkStatus()); });
    });
  });
}

// On the adapter's thread. What the host lost of a disk can't be brought back; so that it can be
// got rid of all the same, whoever was told once isn't told again.
absl::Status ScsiAdapters::Adapter::TellOfLoss(uint16_t lun, const absl::Status& flushed) {
  if (flushed.ok()) {
    loss_told_.erase(lun);
    return absl::OkStatus();
  }
  if (!loss_told_.insert(lun).second) {
    LogWarning(name_, absl::StrCat("LUN ", lun, " is given up with what can't be written: ",
                                   std::string(flushed.message())));
    return absl::OkStatus();
  }
  return WithContext(
      absl::Status(flushed.code(), absl::StrCat(std::string(flushed.message()),
                                                "; ask again to give up what can't be written")),
      "scsi_disk.lun: flushing");
}

void ScsiAdapters::Adapter::Remove(uint16_t lun, const std::stop_token& stop,
                                   const ChangeDone& done) {
  // Whatever the guest does next, what it has written so far is safe.
  loop().Post([this, lun, stop, done] {
    target_->Hold();
    Start(disk::Flush(*target_->disk(lun)), [this, lun, stop, done](const absl::Status& flushed) {
      const absl::Status told = TellOfLoss(lun, flushed);
      target_->Release();
      OnChanges([this, lun, stop, done, told] {
        if (!told.ok()) return done(told);
        Announce(ScsiController::Change::kRemoved, lun, kGuestLetsGo, stop,
                 [this, lun, stop, done](Outcome outcome) {
                   if (outcome != Outcome::kCancelled) return CloseRemoved(lun, done);
                   // A guest that lets go of it late finds it again.
                   Announce(ScsiController::Change::kAdded, lun, kGuestLooks, {}, [](Outcome) {});
                   done(stop.stop_requested()
                            ? absl::CancelledError("the removal was given up; the disk stays")
                            : absl::DeadlineExceededError(absl::StrCat(
                                  "scsi_disk.lun: the guest hasn't let go of LUN ", lun, " within ",
                                  kGuestLetsGo.count(), " s; the disk stays")));
                 });
      });
    });
  });
}

void ScsiAdapters::Adapter::CloseRemoved(uint16_t lun, const ChangeDone& done) {
  loop().Post([this, lun, done] {
    target_->Detach(lun, [this, lun, done](std::unique_ptr<disk::Disk> disk) {
      target_->Hold();
      Close(std::move(disk), [this, lun, done](const absl::Status& closed) {
        target_->Release();
        // Of what was lost the client has heard.
        const bool told = loss_told_.erase(lun) != 0;
        if (told && !closed.ok()) LogWarning(name_, std::string(closed.message()));
        OnChanges([this, lun, done, status = told ? absl::OkStatus() : closed] {
          images_.erase(lun);
          done(WithContext(status, "scsi_disk.host_path: closing"));
        });
      });
    });
  });
}

void ScsiAdapters::Adapter::Update(uint16_t lun, const ImageConfig& image,
                                   const std::stop_token& stop, const ChangeDone& done) {
  const ImageConfig& there = images_.at(lun);
  if (there.path == image.path && there.type == image.type && there.read_only == image.read_only) {
    return Refresh(lun, stop, done);
  }
  if (there.path == image.path) return Reopen(lun, image, done);
  Open(image, [this, lun, image, stop, done](absl::StatusOr<std::unique_ptr<disk::Disk>> disk) {
    if (!disk.ok()) {
      return OnChanges(
          [done, status = WithContext(disk.status(), "scsi_disk.host_path")] { done(status); });
    }
    if (stop.stop_requested()) {
      return Close(*std::move(disk), [this, done](const absl::Status&) {
        OnChanges([done] { done(absl::CancelledError("the update was given up")); });
      });
    }
    Swap(lun, *std::move(disk), image, stop, done);
  });
}

// On the adapter's thread, with the next medium open.
void ScsiAdapters::Adapter::Swap(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                                 const ImageConfig& image, const std::stop_token& stop,
                                 const ChangeDone& done) {
  auto next = std::make_shared<std::unique_ptr<disk::Disk>>(std::move(disk));
  target_->TakeMedium(lun, [this, lun, next, image, stop, done](std::unique_ptr<disk::Disk> old) {
    // Flushed before the other is in: if that fails, all is as it was.
    target_->Hold();
    auto before = std::make_shared<std::unique_ptr<disk::Disk>>(std::move(old));
    Start(disk::Flush(**before), [this, lun, next, before, image, stop,
                                  done](const absl::Status& flushed) {
      const absl::Status told = TellOfLoss(lun, flushed);
      if (!told.ok()) {
        target_->PutMedium(lun, std::move(*before), {}, scsi::Target::MediumChange::kUnchanged);
        target_->Release();
        return Close(std::move(*next), [this, done, told](const absl::Status&) {
          OnChanges([done, told] { done(told); });
        });
      }
      target_->PutMedium(lun, std::move(*next), {});
      Close(std::move(*before), [this, lun, image, stop, done](const absl::Status& closed) {
        target_->Release();
        loss_told_.erase(lun);
        if (!closed.ok()) LogError(name_, std::string(closed.message()));
        OnChanges([this, lun, image, stop, done] {
          images_[lun] = image;
          Announce(ScsiController::Change::kMedium, lun, kGuestLooks, stop,
                   [done](Outcome) { done(absl::OkStatus()); });
        });
      });
    });
  });
}

// The same file, opened in another way: it is locked, so the one goes before the other comes.
void ScsiAdapters::Adapter::Reopen(uint16_t lun, const ImageConfig& image, const ChangeDone& done) {
  const ImageConfig before = images_.at(lun);
  loop().Post([this, lun, image, before, done] {
    target_->TakeMedium(lun, [this, lun, image, before, done](std::unique_ptr<disk::Disk> old) {
      target_->Hold();
      auto there = std::make_shared<std::unique_ptr<disk::Disk>>(std::move(old));
      Start(disk::Flush(**there), [this, lun, image, before, there,
                                   done](const absl::Status& flushed) {
        const absl::Status told = TellOfLoss(lun, flushed);
        if (told.ok()) return ReopenFlushed(lun, std::move(*there), image, before, done);
        target_->PutMedium(lun, std::move(*there), {}, scsi::Target::MediumChange::kUnchanged);
        target_->Release();
        OnChanges([done, told] { done(told); });
      });
    });
  });
}

// On the adapter's thread, with the target held.
void ScsiAdapters::Adapter::ReopenFlushed(uint16_t lun, std::unique_ptr<disk::Disk> old,
                                          const ImageConfig& image, const ImageConfig& before,
                                          const ChangeDone& done) {
  Close(std::move(old), [this, lun, image, before, done](const absl::Status& closed) {
    if (!closed.ok()) LogError(name_, std::string(closed.message()));
    // What was lost is another medium to the guest, whichever way it ends.
    const bool lost = loss_told_.erase(lun) != 0 || !closed.ok();
    Start(OpenDisk(loop(), image), [this, lun, image, before, lost, done](auto disk) {
      if (disk.ok()) {
        target_->PutMedium(lun, *std::move(disk), {});
        target_->Release();
        return OnChanges([this, lun, image, done] {
          images_[lun] = image;
          Announce(ScsiController::Change::kMedium, lun, kGuestLooks, {},
                   [done](Outcome) { done(absl::OkStatus()); });
        });
      }
      const absl::Status failed = WithContext(disk.status(), "scsi_disk.host_path");
      Start(OpenDisk(loop(), before), [this, lun, lost, done, failed](auto again) {
        if (again.ok()) {
          target_->PutMedium(
              lun, *std::move(again), {},
              lost ? scsi::Target::MediumChange::kChanged : scsi::Target::MediumChange::kUnchanged);
          target_->Release();
          return OnChanges([done, failed] { done(failed); });
        }
        // It was there a moment ago, and is gone or taken now: the place is empty.
        target_->Release();
        target_->Detach(lun, [](std::unique_ptr<disk::Disk>) {});
        OnChanges([this, lun, done, failed] {
          images_.erase(lun);
          Announce(ScsiController::Change::kRemoved, lun, kGuestLooks, {}, [](Outcome) {});
          done(failed);
        });
      });
    });
  });
}

void ScsiAdapters::Adapter::Refresh(uint16_t lun, const std::stop_token& stop,
                                    const ChangeDone& done) {
  loop().Post([this, lun, stop, done] {
    const absl::Status status = target_->RefreshCapacity(lun).status();
    OnChanges([this, lun, stop, done, status] {
      if (!status.ok()) return done(WithContext(status, "scsi_disk.host_path"));
      Announce(ScsiController::Change::kCapacity, lun, kGuestLooks, stop,
               [done](Outcome) { done(absl::OkStatus()); });
    });
  });
}

void ScsiAdapters::Adapter::Inspect(inspect::Node& node) const {
  function_->Inspect(node);
  const ScsiController::Counters counters = controller_->counters();
  node.Value("requests", counters.requests);
  node.Value("task_management", counters.task_management);
  node.Value("io_engine", io_->loop().engine() == IoLoop::Engine::kUring ? "io_uring" : "threads");
  node.Child("luns", [this](inspect::Node& luns) {
    for (const scsi::UnitSnapshot& unit : target_->Snapshot()) {
      luns.Child(std::to_string(unit.lun), [&](inspect::Node& one) {
        const scsi::UnitCounters& c = unit.counters;
        one.Value("serial", unit.description.serial);
        one.Value("commands", c.commands);
        one.Value("in_flight", c.in_flight);
        one.Value("reads", c.reads);
        one.Value("writes", c.writes);
        one.Value("flushes", c.flushes);
        one.Value("unmaps", c.unmaps);
        one.Value("read_bytes", c.read_bytes);
        one.Value("written_bytes", c.written_bytes);
        one.Value("unmapped_bytes", c.unmapped_bytes);
        one.Value("aborted", c.aborted);
        one.Value("refused", c.refused);
        one.Value("errors", c.errors);
        one.Value("last_error", unit.last_error.has_value() ? unit.last_error->text : "");
        one.Elsewhere("disk", [this, lun = unit.lun](inspect::Later later) {
          io_->loop().Post([this, lun, later = std::move(later)] {
            if (const disk::Disk* disk = target_->disk(lun); disk != nullptr) {
              later.Describe([&](inspect::Node& facts) { Describe(*disk, facts); });
            }
          });
        });
      });
    }
  });
}

ScsiAdapters::ScsiAdapters(const DeviceHost& host) : host_(host) {}
ScsiAdapters::~ScsiAdapters() = default;

absl::StatusOr<ScsiAdapters::Adapter*> ScsiAdapters::AdapterOf(uint32_t controller, bool hot) {
  if (adapters_[controller] == nullptr) {
    ASSIGN_OR_RETURN(std::unique_ptr<Adapter> adapter, Adapter::Create(controller, host_));
    RETURN_IF_ERROR(adapter->Plug(hot));
    const std::lock_guard lock(mutex_);
    adapters_[controller] = std::move(adapter);
  }
  return adapters_[controller].get();
}

absl::Status ScsiAdapters::AddConfigured(const std::vector<ScsiDiskConfig>& disks) {
  using Opened = absl::StatusOr<std::unique_ptr<disk::Disk>>;
  std::vector<std::future<absl::Status>> results;
  absl::Status first;
  for (const ScsiDiskConfig& disk : disks) {
    const absl::StatusOr<Adapter*> adapter = AdapterOf(disk.controller, /*hot=*/false);
    if (!adapter.ok()) {
      first = adapter.status();
      break;
    }
    auto promise = std::make_shared<std::promise<absl::Status>>();
    results.push_back(promise->get_future());
    const auto lun = static_cast<uint16_t>(disk.lun);
    (*adapter)->Open(disk.image, [adapter = *adapter, lun, promise](Opened opened) {
      const absl::Status status = opened.status();
      if (status.ok()) adapter->Attach(lun, *std::move(opened));
      promise->set_value(status);
    });
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const absl::Status status = results[i].get();
    if (status.ok()) {
      adapters_[disks[i].controller]->images_[static_cast<uint16_t>(disks[i].lun)] = disks[i].image;
    } else if (first.ok()) {
      first = WithContext(status, absl::StrCat("devices_config.scsi_disks[", i, "].host_path"));
    }
  }
  return first;
}

void ScsiAdapters::Modify(Change change, const ScsiDiskConfig& disk, const std::stop_token& stop,
                          const ChangeDone& done) {
  const auto lun = static_cast<uint16_t>(disk.lun);
  if (change == Change::kAdd) {
    const absl::StatusOr<Adapter*> adapter = AdapterOf(disk.controller, /*hot=*/true);
    if (!adapter.ok()) return done(WithContext(adapter.status(), "scsi_disk.controller"));
    return (*adapter)->Add(lun, disk.image, stop, done);
  }
  Adapter* const adapter = adapters_[disk.controller].get();
  if (adapter == nullptr || !adapter->images_.contains(lun)) {
    return done(absl::NotFoundError(absl::StrCat("scsi_disk.lun: controller ", disk.controller,
                                                 " has no disk at LUN ", disk.lun)));
  }
  if (change == Change::kUpdate) {
    return adapter->Update(lun, disk.image, stop, done);
  }
  const absl::Status named = CheckNamesImage(disk.image, adapter->images_.at(lun));
  if (!named.ok()) {
    return done(
        absl::Status(named.code(), absl::StrCat("scsi_disk.", std::string(named.message()))));
  }
  adapter->Remove(lun, stop, done);
}

void ScsiAdapters::Inspect(inspect::Node& node) const {
  const std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < kScsiControllers; ++i) {
    if (adapters_[i] != nullptr) node.Child(absl::StrCat("scsi", i), *adapters_[i]);
  }
}

}  // namespace bothy::machine
