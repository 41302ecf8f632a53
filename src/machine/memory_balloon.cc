#include "machine/memory_balloon.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::machine {
namespace {

constexpr char kName[] = "balloon0";
// "Memory controller", of no kind that PCI has a number for.
constexpr uint32_t kClassMemory = 0x05'8000;

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryBalloon>> MemoryBalloon::Create(const MemoryConfig& config,
                                                                     const DeviceHost& host,
                                                                     memory::GuestMemory& memory,
                                                                     EventLoop& control) {
  auto balloon = std::unique_ptr<MemoryBalloon>(new MemoryBalloon(host, control));
  RETURN_IF_ERROR(balloon->Open(config, memory));
  return balloon;
}

absl::Status MemoryBalloon::Open(const MemoryConfig& config, memory::GuestMemory& memory) {
  ASSIGN_OR_RETURN(io_, IoThread::Create(absl::StrCat("io-", kName), {}));
  device_ = std::make_unique<virtio::BalloonDevice>(
      virtio::BalloonDeviceOptions{.name = kName, .report_free_pages = config.report_free_pages},
      memory, io_->loop());
  ASSIGN_OR_RETURN(function_, virtio::PciDevice::Create(*device_, kClassMemory, io_->loop(), memory,
                                                        host_.pci.endpoint_host()));
  host_.units.Add(function_->registers());
  counted_ = true;
  return host_.pci.AddIntegrated(function_->endpoint());
}

MemoryBalloon::~MemoryBalloon() {
  if (counted_) host_.units.Remove(function_->registers());
  function_.reset();
  if (io_ != nullptr) io_->loop().PostAndWait([this] { device_.reset(); });
}

void MemoryBalloon::AskGuest(std::function<void()> done) {
  io_->loop().Post([this, done = std::move(done)] {
    device_->AskStatistics([this, done] { control_.Post(done); });
  });
}

uint64_t MemoryBalloon::available_bytes() const {
  using virtio::balloon::Tag;
  const virtio::balloon::Statistics statistics = device_->statistics();
  // Drivers of before Linux 4.6 know only what is free.
  return statistics.Get(Tag::kAvailable).value_or(statistics.Get(Tag::kFree).value_or(0));
}

void MemoryBalloon::Inspect(inspect::Node& node) const {
  node.Child(kName, [this](inspect::Node& balloon) {
    function_->Inspect(balloon);
    balloon.Child("memory", *device_);
  });
}

}  // namespace bothy::machine
