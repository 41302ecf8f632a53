#include "machine/pmem_disks.h"

#include <algorithm>
#include <functional>
#include <future>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "machine/disk_image.h"
#include "machine/ejection.h"
#include "support/check.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "virtio/pci/pci_device.h"
#include "virtio/pmem/pmem_device.h"
#include "virtio/pmem/pmem_window.h"

namespace bothy::machine {
namespace {

constexpr uint32_t kClassMemory = 0x05'8000;

using OpenedWindow = absl::StatusOr<std::unique_ptr<virtio::PmemWindow>>;

Task<OpenedWindow> OpenWindow(IoLoop& loop, ImageConfig image, virtio::PmemWindowOptions options) {
  absl::StatusOr<std::unique_ptr<disk::Disk>> disk = co_await OpenDisk(loop, std::move(image));
  if (!disk.ok()) co_return disk.status();
  OpenedWindow window =
      co_await virtio::PmemWindow::Create(loop, *std::move(disk), std::move(options));
  co_return window;
}

// The lowest place of `size` bytes in `room` that overlaps none of `taken`.
std::optional<uint64_t> FindPlace(const memory::AddressRange& room,
                                  std::vector<memory::AddressRange> taken, uint64_t size) {
  std::sort(taken.begin(), taken.end(),
            [](const auto& a, const auto& b) { return a.base < b.base; });
  uint64_t at = room.base;
  for (const memory::AddressRange& other : taken) {
    if (other.base >= at && other.base - at >= size) break;
    at = std::max(at, other.end());
  }
  if (at > room.end() || room.end() - at < size) return std::nullopt;
  return at;
}

}  // namespace

// Where stores to read-only persistent memory end up.
class RefusedStores final : public chipset::IoDevice {
 public:
  explicit RefusedStores(virtio::PmemWindow& window) : window_(window) {}
  void Read(uint64_t, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), uint8_t{0xFF});
  }
  void Write(uint64_t, std::span<const uint8_t>) override { window_.NoteRefusedStore(); }

 private:
  virtio::PmemWindow& window_;
};

// One image in the guest's memory.
class PmemDisks::Device {
 public:
  Device(std::string name, ImageConfig image, const DeviceHost& host)
      : name_(std::move(name)), image_(std::move(image)), host_(host) {}
  ~Device() { CHECK(window_ == nullptr); }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const ImageConfig& image() const { return image_; }
  [[nodiscard]] const memory::AddressRange& range() const { return range_; }
  [[nodiscard]] pci::RootPort& port() { return *port_; }

  // Opens the image, all or nothing.
  absl::Status Open() {
    ASSIGN_OR_RETURN(io_, IoThread::Create("io-" + name_, {}));
    virtio::PmemWindowOptions options;
    options.name = name_;
    options.on_failure = [name = name_](const absl::Status& status) {
      LogError(name, absl::StrCat("failed: ", std::string(status.message())));
    };
    std::promise<OpenedWindow> opened;
    io_->loop().Post([&] {
      Start(OpenWindow(io_->loop(), image_, options),
            [&opened](OpenedWindow window) { opened.set_value(std::move(window)); });
    });
    ASSIGN_OR_RETURN(window_, opened.get_future().get());
    return absl::OkStatus();
  }
  [[nodiscard]] uint64_t size_bytes() const { return window_->size_bytes(); }
  [[nodiscard]] virtio::PmemWindow& window() { return *window_; }

  // Shows it to the guest at `base`. After an error, Close.
  absl::Status Show(uint64_t base) {
    range_ = {base, window_->size_bytes()};
    hypervisor::MemorySlotOptions slot;
    slot.guest_physical = base;
    slot.host = window_->host();
    slot.read_only = window_->read_only();
    ASSIGN_OR_RETURN(slot_, host_.vm.MapMemory(slot));
    const auto access = window_->read_only() ? memory::Access::kRead : memory::Access::kWrite;
    RETURN_IF_ERROR(host_.memory.AddDeviceMemory(base, window_->host(), access));
    addressed_ = true;
    if (window_->read_only()) {
      refused_ = std::make_unique<RefusedStores>(*window_);
      RETURN_IF_ERROR(mmio().Register(base, range_.size, *refused_));
      registered_ = true;
    }
    virtio::PmemDeviceOptions options;
    options.name = name_;
    options.guest_base = base;
    options.size_bytes = range_.size;
    device_ = std::make_unique<virtio::PmemDevice>(options, *window_, io_->loop());
    ASSIGN_OR_RETURN(function_, virtio::PciDevice::Create(*device_, kClassMemory, io_->loop(),
                                                          host_.memory, host_.pci.endpoint_host()));
    host_.units.Add(function_->registers());
    counted_ = true;
    ASSIGN_OR_RETURN(port_, host_.pci.FreePort());
    return host_.pci.Plug(*port_, function_->endpoint());
  }

  // Whether Show has gone well; under the disks' mutex.
  [[nodiscard]] bool shown() const { return shown_; }
  void set_shown() { shown_ = true; }

  // Takes it from the machine; what the image may still lack is written. The function is on no bus
  // any more. Its addresses stay, see PmemWindow::Close.
  absl::Status Close() {
    if (counted_) host_.units.Remove(function_->registers());
    function_.reset();
    if (registered_) CHECK_OK(mmio().Unregister(range_.base, range_.size));
    slot_.reset();
    if (addressed_) CHECK_OK(host_.memory.RemoveDeviceMemory(range_.base));
    if (window_ == nullptr) return absl::OkStatus();
    std::promise<absl::Status> closed;
    io_->loop().Post([&] {
      Start(window_->Close(),
            [&closed](absl::Status status) { closed.set_value(std::move(status)); });
    });
    absl::Status status = closed.get_future().get();
    retired_ = window_->TakeMapping();
    io_->loop().PostAndWait([this] {
      device_.reset();
      window_.reset();
    });
    return status;
  }
  [[nodiscard]] Mapping TakeAddresses() { return std::move(retired_); }

  void Inspect(inspect::Node& node) const {
    node.Value("path", image_.path);
    node.Value("read_only", image_.read_only);
    node.Address("base", range_.base);
    node.Value("size_bytes", range_.size);
    const virtio::PmemDevice::Counters counters = device_->counters();
    node.Value("requests", counters.requests);
    node.Value("failed_requests", counters.failed);
    node.Child("window", *window_);
    function_->Inspect(node);
    node.Elsewhere("disk", [this](inspect::Later later) {
      io_->loop().Post([this, later = std::move(later)] {
        later.Describe([this](inspect::Node& facts) { Describe(window_->disk(), facts); });
      });
    });
  }

 private:
  [[nodiscard]] chipset::IoBus& mmio() const { return host_.pci.endpoint_host().mmio; }

  const std::string name_;
  const ImageConfig image_;
  const DeviceHost& host_;
  std::unique_ptr<IoThread> io_;
  std::unique_ptr<virtio::PmemWindow> window_;
  Mapping retired_;
  memory::AddressRange range_;  // guest-physical
  std::unique_ptr<hypervisor::MemorySlot> slot_;
  bool addressed_ = false;  // GuestMemory knows the range
  std::unique_ptr<RefusedStores> refused_;
  bool registered_ = false;  // the MMIO bus knows it
  std::unique_ptr<virtio::PmemDevice> device_;
  std::unique_ptr<virtio::PciDevice> function_;
  bool counted_ = false;  // among the machine's units
  pci::RootPort* port_ = nullptr;
  bool shown_ = false;
};

PmemDisks::PmemDisks(const DeviceHost& host) : host_(host) {}

PmemDisks::~PmemDisks() {
  for (auto& [path, device] : devices_) (void)Retire(*device);
}

absl::Status PmemDisks::Retire(Device& device) {
  absl::Status status = device.Close();
  if (!status.ok()) {
    LogError(device.name(), absl::StrCat("closing: ", std::string(status.message())));
  }
  retired_.push_back(device.TakeAddresses());
  return status;
}

absl::Status PmemDisks::Add(const ImageConfig& image) {
  uint32_t number = 0;
  std::vector<memory::AddressRange> taken;
  for (bool free = false; !free; number += free ? 0 : 1) {
    free = std::none_of(devices_.begin(), devices_.end(), [&](const auto& entry) {
      return entry.second->name() == absl::StrCat("pmem", number);
    });
  }
  for (const auto& [path, device] : devices_) taken.push_back(device->range());
  auto device = std::make_unique<Device>(absl::StrCat("pmem", number), image, host_);
  RETURN_IF_ERROR(device->Open());
  const memory::AddressRange& room = host_.memory.layout().device_memory;
  // Linux keeps books of memory in sections of 128 MiB: two devices don't share one.
  constexpr uint64_t kSection = 128 * memory::kMiB;
  const uint64_t size = (device->size_bytes() + kSection - 1) / kSection * kSection;
  for (memory::AddressRange& range : taken)
    range.size = (range.size + kSection - 1) / kSection * kSection;
  const std::optional<uint64_t> base = FindPlace(room, taken, size);
  if (!base.has_value()) {
    (void)Retire(*device);
    return absl::ResourceExhaustedError(absl::StrCat(image.path, ": no room for ", size,
                                                     " bytes in the guest's physical addresses"));
  }
  // From when the guest sees it RecoverMemory must find it; Inspect only when all of it is there.
  Device& added = *device;
  {
    const std::lock_guard lock(mutex_);
    devices_[image.path] = std::move(device);
  }
  absl::Status status = added.Show(*base);
  if (status.ok()) {
    const std::lock_guard lock(mutex_);
    added.set_shown();
    return status;
  }
  // Why it failed is a better reason than what closing it says.
  (void)Retire(*Take(image.path));
  return status;
}

std::unique_ptr<PmemDisks::Device> PmemDisks::Take(const std::string& path) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Device> device = std::move(devices_.at(path));
  devices_.erase(path);
  return device;
}

absl::Status PmemDisks::AddConfigured(const std::vector<PmemDiskConfig>& disks) {
  for (size_t i = 0; i < disks.size(); ++i) {
    RETURN_IF_ERROR(WithContext(Add(disks[i].image),
                                absl::StrCat("devices_config.vpmem_disks[", i, "].host_path")));
  }
  return absl::OkStatus();
}

void PmemDisks::Modify(Change change, const PmemDiskConfig& disk, const std::stop_token& stop,
                       const ChangeDone& done) {
  const auto at = devices_.find(disk.image.path);
  if (change == Change::kAdd) {
    if (at != devices_.end()) {
      return done(absl::AlreadyExistsError(absl::StrCat("vpmem_disk.host_path: ", disk.image.path,
                                                        " is in the guest's memory already")));
    }
    return done(WithContext(Add(disk.image), "vpmem_disk.host_path"));
  }
  if (at == devices_.end()) {
    return done(absl::NotFoundError(
        absl::StrCat("vpmem_disk.host_path: ", disk.image.path, " isn't in the guest's memory")));
  }
  const absl::Status named = CheckNamesImage(disk.image, at->second->image());
  if (!named.ok()) {
    return done(
        absl::Status(named.code(), absl::StrCat("vpmem_disk.", std::string(named.message()))));
  }
  Remove(disk.image.path, stop, done);
}

void PmemDisks::Remove(const std::string& path, const std::stop_token& stop,
                       const ChangeDone& done) {
  Eject(host_, devices_.at(path)->port(), "vpmem_disk.host_path", "the memory", stop,
        [this, path, done](const absl::Status& status) {
          if (!status.ok()) return done(status);
          done(WithContext(Retire(*Take(path)), "vpmem_disk.host_path: closing"));
        });
}

bool PmemDisks::RecoverMemory(uint64_t& recoveries_seen) {
  const std::lock_guard lock(mutex_);
  const uint64_t seen = std::exchange(recoveries_seen, recoveries_);
  if (seen != recoveries_) return true;  // done for another vCPU since
  // The files of all others stay mapped while there is one that is known to be the reason.
  using Suspects = virtio::PmemWindow::Suspects;
  for (const Suspects suspects : {Suspects::kTruncated, Suspects::kAll}) {
    bool recovered = false;
    for (auto& [path, device] : devices_) recovered |= device->window().OnFault(suspects);
    if (!recovered) continue;
    recoveries_seen = ++recoveries_;
    return true;
  }
  return false;
}

bool PmemDisks::empty() const {
  const std::lock_guard lock(mutex_);
  return devices_.empty();
}

void PmemDisks::Inspect(inspect::Node& node) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [path, device] : devices_) {
    if (device->shown()) node.Child(device->name(), *device);
  }
}

}  // namespace bothy::machine
