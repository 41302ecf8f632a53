#include "disk/vhdx/flush_tracking_storage.h"

#include <memory>
#include <utility>

namespace bothy::disk::vhdx {

// A flush of the base's that stands for one of the user's.
class FlushTrackingStorage::Flush final : public Request {
 public:
  Flush(FlushTrackingStorage& storage, Request& of) : storage_(storage), of_(of) {
    operation = Operation::kFlush;
  }
  void Complete(absl::Status status) override {
    const std::unique_ptr<Flush> self(this);
    if (!status.ok()) {
      ++storage_.failures_;
      storage_.failure_ = status;
    }
    of_.Complete(std::move(status));
  }

 private:
  FlushTrackingStorage& storage_;
  Request& of_;
};

void FlushTrackingStorage::Submit(Request& request) {
  if (request.operation != Operation::kFlush) return base_.Submit(request);
  // Deletes itself.
  base_.Submit(*std::make_unique<Flush>(*this, request).release());
}

absl::Status FlushTrackingStorage::AnswerFlush(uint64_t told, absl::Status status) {
  if (status.ok() && failures_ > told) status = failure_;
  if (!status.ok()) told_ = failures_;
  return status;
}

}  // namespace bothy::disk::vhdx
