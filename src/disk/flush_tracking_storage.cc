#include "disk/flush_tracking_storage.h"

#include <utility>

namespace bothy::disk {

void FlushTrackingStorage::Submit(Request& request) {
  if (request.operation != Operation::kFlush) return storage().Submit(request);
  Ask({.request = &request, .users = false});
}

void FlushTrackingStorage::SubmitUserFlush(Request& request) {
  Ask({.request = &request, .users = true});
}

void FlushTrackingStorage::Ask(const Asked& flush) {
  waiting_.push_back(flush);
  if (under_way_.empty()) BeginFlush();
}

void FlushTrackingStorage::BeginFlush() {
  under_way_ = std::exchange(waiting_, {});
  storage().Submit(flush_);
}

void FlushTrackingStorage::EndFlush(const absl::Status& status) {
  if (lost_.ok() && !status.ok() && !absl::IsUnavailable(status)) lost_ = status;
  struct Answer {
    Request* request = nullptr;
    absl::Status status;
  };
  std::vector<Answer> answers;
  answers.reserve(under_way_.size());
  for (const Asked& flush : std::exchange(under_way_, {})) {
    answers.push_back(
        {.request = flush.request, .status = flush.users ? AnswerFlush(status) : status});
  }
  if (!waiting_.empty()) BeginFlush();
  // Whoever hears of it may end this.
  for (Answer& answer : answers) answer.request->Complete(std::move(answer.status));
}

absl::Status FlushTrackingStorage::AnswerFlush(absl::Status status) const {
  if (!lost_.ok()) return lost_;
  return status;
}

Task<Disk::MappedSync> SyncMappedOf(Disk& disk, const FlushTrackingStorage& file) {
  Disk::MappedSync sync;
  sync.status = co_await Flush(disk);
  sync.stores_lost = !file.lost().ok();
  co_return sync;
}

}  // namespace bothy::disk
