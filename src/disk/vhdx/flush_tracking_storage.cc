#include "disk/vhdx/flush_tracking_storage.h"

#include <utility>

namespace bothy::disk::vhdx {

void FlushTrackingStorage::Submit(Request& request) {
  if (request.operation != Operation::kFlush) return base_.Submit(request);
  waiting_.push_back(&request);
  if (under_way_.empty()) BeginFlush();
}

void FlushTrackingStorage::BeginFlush() {
  under_way_ = std::exchange(waiting_, {});
  base_.Submit(flush_);
}

void FlushTrackingStorage::EndFlush(const absl::Status& status) {
  if (!status.ok()) {
    ++failures_;
    failure_ = status;
  }
  const std::vector<Request*> ended = std::exchange(under_way_, {});
  if (!waiting_.empty()) BeginFlush();
  // Whoever hears of it may end this.
  for (Request* const request : ended) request->Complete(status);
}

absl::Status FlushTrackingStorage::AnswerFlush(uint64_t told, absl::Status status) {
  if (status.ok() && failures_ > told) status = failure_;
  if (!status.ok()) told_ = failures_;
  return status;
}

}  // namespace bothy::disk::vhdx
