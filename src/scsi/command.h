// Command: one SCSI command on its way through a target.
//
// The front end (virtio-scsi, later VMBus) owns it, fills it with Begin, hands it to
// Target::Execute and gets it back in Complete. It embeds the disk request, so that reads and
// writes allocate nothing. Everything a driver says is in here as a private copy, but for the data
// buffers, which are the guest's memory and only ever handed on to the host's I/O.
//
// Loop thread only.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "disk/request.h"
#include "scsi/sense.h"

namespace bothy::scsi {

inline constexpr uint16_t kMaxLuns = 64;

// What became of a command as far as the transport is concerned.
enum class Outcome : uint8_t {
  kOk,         // the target answered: see status and sense
  kBadTarget,  // nobody is there
  kAborted,    // by task management
  kReset,      // by a reset
  kOverrun,    // the CDB asks for more data than there is room for
  kBusy,
  kFailure,
};

// SAM-5, 5.3.1.
enum class Status : uint8_t { kGood = 0x00, kCheckCondition = 0x02, kBusy = 0x08 };

class LogicalUnit;

class Command {
 public:
  struct Input {
    uint16_t lun = 0;
    uint64_t tag = 0;              // the driver's, for task management
    std::span<const uint8_t> cdb;  // a private copy, padded with zeroes
    std::span<const iovec> data_out;
    uint64_t data_out_bytes = 0;
    std::span<const iovec> data_in;
    uint64_t data_in_bytes = 0;
  };

  virtual ~Command() = default;
  Command() : transfer_(*this) {}
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Makes it a new command. What `input` refers to stays until Complete.
  void Begin(const Input& input) {
    input_ = input;
    outcome = Outcome::kOk;
    status = Status::kGood;
    residual = 0;
    data_in_written = 0;
    sense_.clear();
    abort_as_ = Outcome::kOk;
  }

  // The answer.
  Outcome outcome = Outcome::kOk;
  Status status = Status::kGood;
  uint64_t residual = 0;         // bytes of the buffers that the command had no use for
  uint64_t data_in_written = 0;  // bytes of data_in, from their beginning
  [[nodiscard]] std::span<const uint8_t> sense() const { return sense_.bytes(); }

 protected:
  // The answer is there. The command may be freed in it.
  virtual void Complete() = 0;

 private:
  friend class LogicalUnit;
  friend class Target;

  class Transfer final : public disk::Request {
   public:
    explicit Transfer(Command& command) : command_(command) {}
    void Complete(absl::Status status) override;

   private:
    Command& command_;
  };

  Input input_;
  Sense sense_;
  Outcome abort_as_ = Outcome::kOk;  // what task management made of it
  bool flush_after_ = false;         // FUA
  LogicalUnit* unit_ = nullptr;      // while it is under way
  Command* next_ = nullptr;          // among those under way in its unit
  Command* previous_ = nullptr;
  Transfer transfer_;
};

}  // namespace bothy::scsi
