// Command: one SCSI command on its way through a target.
//
// The front end (virtio-scsi, later VMBus) owns it, fills it with Begin, hands it to
// Target::Execute and gets it back in Complete, once. It embeds the request of the disk, so that
// reads and writes allocate nothing. What the driver says is in it as a private copy, but for the
// data buffers, which are the guest's memory: nothing is decided on what is read there twice.
//
//   class Request final : public scsi::Command {
//     void Complete() override { /* status, sense(), residual, outcome → the driver */ }
//   };
//   request.Begin({.lun = 3, .tag = 17, .cdb = cdb, .data_in = buffers, .data_in_bytes = 4096});
//   target.Execute(request);
//
// Loop thread only.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "disk/request.h"
#include "scsi/sense.h"

namespace bothy::scsi {

// Logical units of a target: 0..kMaxLuns - 1.
inline constexpr uint16_t kMaxLuns = 64;

// What became of a command as far as the transport is concerned.
enum class Outcome : uint8_t {
  kOk,         // the target answered: see status and sense
  kBadTarget,  // nobody is there; only front ends say so
  kAborted,    // by task management
  kReset,      // by a reset of its unit, nexus or target
  kOverrun,    // the CDB asks for more data than the buffers hold; nothing was transferred
  kBusy,
  kFailure,
};

// SAM-5, 5.3.1.
enum class Status : uint8_t { kGood = 0x00, kCheckCondition = 0x02 };

// SAM-5, 8.7. An ordered command starts when all older ones have ended, and younger ones when it
// has. Simple commands start in their order and end in any. One for the head of the queue starts at
// once, before all that wait, and until it has ended no other kind starts.
enum class TaskAttribute : uint8_t { kSimple, kOrdered, kHeadOfQueue };

class LogicalUnit;
struct CommandEntry;

class Command {
 public:
  struct Input {
    uint16_t lun = 0;
    uint64_t tag = 0;  // the driver's, for task management
    TaskAttribute attribute = TaskAttribute::kSimple;
    std::span<const uint8_t> cdb = {};  // copied; read as zero past its end, ignored past 32 bytes
    std::span<const iovec> data_out = {};
    uint64_t data_out_bytes = 0;
    std::span<const iovec> data_in = {};
    uint64_t data_in_bytes = 0;
  };

  Command() : transfer_(*this) {}
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  virtual ~Command() = default;

  // Makes it a new command. What the buffers' spans refer to stays until Complete; data_out_bytes
  // and data_in_bytes are the sums of their lengths.
  void Begin(const Input& input);

  // The answer, from Complete on.
  Outcome outcome = Outcome::kOk;
  Status status = Status::kGood;
  uint64_t residual = 0;         // bytes of the buffers, both ways, that nothing was done with
  uint64_t data_in_written = 0;  // bytes of data_in, from their beginning
  // Empty unless the status is CHECK CONDITION; at most 28 bytes.
  [[nodiscard]] std::span<const uint8_t> sense() const { return sense_.bytes(); }

 protected:
  // The answer is there. On the loop's thread, maybe from inside Execute. The command may be begun
  // anew or freed in it.
  virtual void Complete() = 0;

 private:
  friend class CommandList;
  friend class LogicalUnit;
  friend class Target;
  static constexpr size_t kMaxCdbBytes = 32;

  // The operation of the disk that most commands are.
  class Transfer final : public disk::Request {
   public:
    explicit Transfer(Command& command) : command_(command) {}
    void Complete(absl::Status status) override;

   private:
    Command& command_;
  };

  [[nodiscard]] const uint8_t* cdb() const { return cdb_.data(); }
  [[nodiscard]] bool aborted() const { return abort_as_ != Outcome::kOk; }

  Input input_;
  std::array<uint8_t, kMaxCdbBytes> cdb_{};
  EncodedSense sense_;
  const CommandEntry* entry_ = nullptr;  // null: no such command
  LogicalUnit* unit_ = nullptr;          // while it is under way there
  uint64_t sequence_ = 0;                // the order in which it came to its unit
  Outcome abort_as_ = Outcome::kOk;      // what task management made of it meanwhile
  bool unit_gone_ = false;               // detached while this waited: the place counts as empty
  bool flush_after_ = false;             // what it writes shall be safe when it ends
  uint64_t data_out_taken_ = 0;
  Command* next_ = nullptr;
  Command* previous_ = nullptr;
  std::vector<iovec> trimmed_;  // buffers of a transfer that doesn't fill those it was given
  Transfer transfer_;
};

// Commands in order; each is in at most one list.
class CommandList {
 public:
  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] Command* first() const { return first_; }
  static Command* Next(const Command& command) { return command.next_; }
  void PushBack(Command& command);
  void Remove(Command& command);
  Command& PopFront();

 private:
  Command* first_ = nullptr;
  Command* last_ = nullptr;
};

}  // namespace bothy::scsi
