// EventQueue: tells a virtio-scsi driver of logical units that come, go and change (virtio 1.2,
// 5.6.6.3), and hears when it has dealt with it.
//
// The driver leaves buffers in the queue; an event goes out in one. Drivers give a buffer back
// after they have handled the event that it brought (Linux after it has scanned or removed the
// unit): that is the acknowledgement. Events that find no buffer wait for one, so none is ever
// missed.
//
// Loop thread only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "support/status.h"
#include "virtio/queue/virtqueue.h"
#include "virtio/scsi/wire.h"

namespace bothy::virtio {

struct ScsiEvent {
  uint32_t event = 0;
  std::array<uint8_t, scsi_wire::kLunBytes> lun{};
  uint32_t reason = 0;
};

class EventQueue {
 public:
  enum class Outcome : uint8_t {
    kHandled,    // the driver gave the buffer back
    kNoDriver,   // nobody drives the device, or the driver wants no such events
    kCancelled,  // Cancel was called
  };
  using Done = std::function<void(Outcome)>;

  // From Attach to Detach there is a driver. `interrupt` is called when it has to look.
  void Attach(std::unique_ptr<Virtqueue> queue, bool wants_events, std::function<void()> interrupt);
  // Events that wait end as kNoDriver.
  void Detach();
  // While paused nothing goes out and nothing is taken in.
  void Pause() { paused_ = true; }
  absl::Status Resume();

  // Sends an event; `done` is called once, perhaps before this returns. An id for Cancel.
  uint64_t Send(const ScsiEvent& event, Done done);
  // An event that waits for a buffer isn't sent any more; one that is out is no longer waited for.
  // Does nothing when it has ended.
  void Cancel(uint64_t id);

  // Takes the driver's buffers and sends what waits. An error means that the driver broke the
  // rules.
  absl::Status OnDoorbell();

 private:
  struct Waiting {
    uint64_t id = 0;
    ScsiEvent event;
    Done done;
  };
  struct Out {
    uint64_t id = 0;
    const void* buffer = nullptr;  // never followed: only compared
    Done done;
  };
  struct Buffer {
    uint16_t head = 0;
    std::vector<iovec> writable;
  };
  void Acknowledge(const void* buffer);
  void Deliver();

  std::unique_ptr<Virtqueue> queue_;
  std::function<void()> interrupt_;
  bool wants_events_ = false;
  bool paused_ = true;
  uint64_t next_id_ = 1;
  std::deque<Waiting> waiting_;
  std::deque<Out> out_;  // oldest first
  std::deque<Buffer> buffers_;
};

}  // namespace bothy::virtio
