// FlushTrackingStorage: an image's file that doesn't forget a flush that failed.
//
// A host keeps what is written in memory, tells once that it couldn't bring it to the device, to
// whichever flush comes next (Linux: fsync), and counts it as written from then on: the flush after
// that succeeds over lost data. Many flushes aren't the user's (of headers, of a log or a footer,
// before a commit); each one of the user's that is in flight may be the one that stands for what is
// lost; and a guest's kernel tries a flush that failed again and believes the second answer. So a
// format makes all flushes of its file through this class, and once one has failed, whosever it
// was, all of the user's fail, those in flight too, until the disk is closed: nothing brings back
// what is lost, and only another medium can be trusted.
//
// A file that was deleted (Unavailable) has everything as long as it is open: that is told as long
// as it is so, and not remembered.
//
// A flush that is nothing but one of the file is handed on as the user's:
//
//   file.SubmitUserFlush(request);
//
// and one that is more is answered by the class:
//
//   absl::Status status = ...;  // whatever makes things durable
//   co_return file.AnswerFlush(std::move(status));
//
// Flushes of the file go one at a time: of two that overlap, the one that succeeds could end before
// the one that was told the error. Those that come meanwhile share the next.
#pragma once

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

  // Not OK once what was written may be lost: the first failure.
  [[nodiscard]] const absl::Status& lost() const { return lost_; }
  // What a flush of the user's answers that has ended with `status`.
  [[nodiscard]] absl::Status AnswerFlush(absl::Status status) const;

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
    bool users = false;
  };
  void Ask(const Asked& flush);
  void BeginFlush();
  void EndFlush(const absl::Status& status);

  BaseFlush flush_{*this};
  std::vector<Asked> under_way_;  // that flush_ stands for; empty: none runs
  std::vector<Asked> waiting_;    // for the next one
  absl::Status lost_;
};

// Disk::SyncMapped of a disk on `file`, for a format whose flush is more than one of its file. Both
// outlive the task.
Task<Disk::MappedSync> SyncMappedOf(Disk& disk, const FlushTrackingStorage& file);

}  // namespace bothy::disk
