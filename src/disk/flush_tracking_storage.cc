#include "disk/flush_tracking_storage.h"

#include <utility>

namespace bothy::disk {

void FlushTrackingStorage::Submit(Request& request) {
  if (request.operation != Operation::kFlush) return storage().Submit(request);
  Ask({.request = &request, .told = std::nullopt});
}

void FlushTrackingStorage::SubmitUserFlush(Request& request) {
  Ask({.request = &request, .told = told_});
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
  if (!status.ok()) {
    ++failures_;
    failure_ = status;
  }
  struct Answer {
    Request* request = nullptr;
    absl::Status status;
  };
  std::vector<Answer> answers;
  answers.reserve(under_way_.size());
  for (const Asked& flush : std::exchange(under_way_, {})) {
    answers.push_back(
        {.request = flush.request,
         .status = flush.told.has_value() ? AnswerFlush(*flush.told, status) : status});
  }
  if (!waiting_.empty()) BeginFlush();
  // Whoever hears of it may end this.
  for (Answer& answer : answers) answer.request->Complete(std::move(answer.status));
}

absl::Status FlushTrackingStorage::AnswerFlush(uint64_t told, absl::Status status) {
  if (status.ok() && failures_ > told) status = failure_;
  if (!status.ok()) told_ = failures_;
  return status;
}

Task<Disk::MappedSync> SyncMappedOf(Disk& disk, const FlushTrackingStorage& file) {
  const uint64_t told = file.failures_told();
  Disk::MappedSync sync;
  sync.status = co_await Flush(disk);
  sync.stores_lost = file.failures() > told;
  co_return sync;
}

}  // namespace bothy::disk
