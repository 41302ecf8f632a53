// PmemDevice: a virtio-pmem device (virtio 1.2, 5.19): where a range of persistent memory lies, and
// a queue of requests to make it durable.
//
// The memory itself is a PmemWindow that the machine maps into the guest; the driver finds its
// guest-physical address in the configuration. Everything on the thread of the loop, but
// ReadConfig, WriteConfig and counters().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/io_loop.h"
#include "support/task.h"
#include "virtio/device.h"
#include "virtio/queue/serving_rounds.h"

namespace bothy::virtio {

// What a flush request asks for.
class Flushable {
 public:
  virtual ~Flushable() = default;
  // OK when everything that the guest had stored before the call is durable. Any number of calls
  // may wait together. On the device's loop.
  virtual Task<absl::Status> Flush() = 0;
  // Waits until nothing changes in a file any more but by stores and flushes. No flush is under way
  // or comes meanwhile.
  virtual Task<void> Settle() = 0;
};

struct PmemDeviceOptions {
  std::string name;         // "pmem0"
  uint64_t guest_base = 0;  // guest-physical address, a multiple of kPmemAlignment
  uint64_t size_bytes = 0;  // PmemWindow::size_bytes()
};

class PmemDevice final : public Device {
 public:
  // `memory` and `loop` outlive the device.
  PmemDevice(PmemDeviceOptions options, Flushable& memory, IoLoop& loop);
  // Reset before, if it was ever activated.
  ~PmemDevice() override;

  // Device.
  [[nodiscard]] uint16_t type() const override { return kDeviceTypePmem; }
  [[nodiscard]] const std::string& name() const override { return options_.name; }
  // None of its own: the address is in the configuration, not in a shared memory region
  // (VIRTIO_PMEM_F_SHMEM_REGION).
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] const std::vector<uint16_t>& queue_sizes() const override { return queue_sizes_; }
  [[nodiscard]] memory::Backing backing() const override { return memory::Backing::kRam; }
  void ReadConfig(uint64_t offset, std::span<uint8_t> data) override;
  void WriteConfig(uint64_t offset, std::span<const uint8_t> data) override;
  void Activate(Transport& transport, uint64_t features,
                std::vector<std::unique_ptr<Virtqueue>> queues) override;
  void OnDoorbell(uint16_t queue) override;
  void Quiesce(std::function<void()> done) override;
  void Resume() override;
  void Reset(std::function<void()> done) override;

  struct Counters {
    uint64_t requests = 0;  // flushes asked for
    uint64_t failed = 0;    // answered with an error, malformed ones too
  };
  // Any thread.
  [[nodiscard]] Counters counters() const;

 private:
  static constexpr uint16_t kRequestQueue = 0;

  void Serve();
  [[nodiscard]] absl::Status StartRequest(const Chain& chain);
  void Answer(uint16_t head, std::span<const iovec> writable, bool ok);
  void OnIdle();
  [[nodiscard]] bool serving() const { return queue_ != nullptr && !quiesced_ && !broken_; }

  const PmemDeviceOptions options_;
  Flushable& memory_;
  const std::vector<uint16_t> queue_sizes_;

  Transport* transport_ = nullptr;
  std::unique_ptr<Virtqueue> queue_;
  bool quiesced_ = true;
  bool broken_ = false;
  ServingRounds rounds_;
  uint64_t in_flight_ = 0;  // flushes under way, at most one a descriptor
  std::vector<std::function<void()>> on_idle_;
  std::atomic<uint64_t> requests_{0};
  std::atomic<uint64_t> failed_{0};
};

}  // namespace bothy::virtio
