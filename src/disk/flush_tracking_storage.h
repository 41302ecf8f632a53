// FlushTrackingStorage: an image's file that remembers its flushes that failed until the user of
// the disk, a guest, was told.
//
// A host keeps what is written in memory, tells once that it couldn't bring it to the device, to
// whichever flush comes next (Linux: fsync), and counts it as written from then on: the flush after
// that succeeds over lost data. Many flushes aren't the user's (of headers, of a log or a footer,
// before a commit), so that the error could end where nobody looks. And each one of the user's that
// is in flight may be the one that stands for what is lost. So a format makes all flushes of its
// file through this class, and whatever flush fails, those of the user's that are in flight fail
// with it, or else the next one.
//
// One that is nothing but a flush of the file is handed on as the user's:
//
//   file.SubmitUserFlush(request);
//
// and one that is more is answered by the class:
//
//   const uint64_t told = file.failures_told();
//   absl::Status status = ...;  // whatever makes things durable
//   co_return file.AnswerFlush(told, std::move(status));
//
// Flushes of the file go one at a time: of two that overlap, the one that succeeds could end before
// the one that was told the error. Those that come meanwhile share the next.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/disk.h"
#include "disk/storage.h"

namespace bothy::disk {

class FlushTrackingStorage final : public BorrowedStorage {
 public:
  // `base` outlives it.
  explicit FlushTrackingStorage(Storage& base) : BorrowedStorage(base) {}

  void Submit(Request& request) override;
  // The same for a flush of the user's, which is answered as by AnswerFlush.
  void SubmitUserFlush(Request& request);

  // When a flush of the user's begins: the failures that others of his have told of.
  [[nodiscard]] uint64_t failures_told() const { return told_; }
  // Of all flushes of the file. More than what had been told when a flush of the user's began: what
  // was written before may be lost.
  [[nodiscard]] uint64_t failures() const { return failures_; }
  // When it ends with `status`: what it answers. The last failure, when there was one that nobody
  // had been told of when it began, else `status`.
  [[nodiscard]] absl::Status AnswerFlush(uint64_t told, absl::Status status);

 private:
  class BaseFlush final : public Request {
   public:
    explicit BaseFlush(FlushTrackingStorage& storage) : storage_(storage) {
      operation = Operation::kFlush;
    }
    void Complete(absl::Status status) override { storage_.EndFlush(status); }

   private:
    FlushTrackingStorage& storage_;
  };
  // A flush that was asked for.
  struct Asked {
    Request* request = nullptr;
    std::optional<uint64_t> told;  // the user's: failures_told() when it began
  };
  void Ask(const Asked& flush);
  void BeginFlush();
  void EndFlush(const absl::Status& status);

  BaseFlush flush_{*this};
  std::vector<Asked> under_way_;  // that flush_ stands for; empty: none runs
  std::vector<Asked> waiting_;    // for the next one
  uint64_t failures_ = 0;         // of flushes
  uint64_t told_ = 0;             // of them
  absl::Status failure_;          // the last one
};

// Disk::SyncMapped of a disk on `file`, for a format whose flush is more than one of its file. Both
// outlive the task.
Task<Disk::MappedSync> SyncMappedOf(Disk& disk, const FlushTrackingStorage& file);

}  // namespace bothy::disk
