#include "disk/vhdx/overlay_storage.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "disk/buffers.h"

namespace bothy::disk::vhdx {

void OverlayStorage::Submit(Request& request) {
  switch (request.operation) {
    case Operation::kFlush:
      return request.Complete(absl::OkStatus());
    case Operation::kWrite:
      return request.Complete(Write(request));
    case Operation::kWriteZeroes:
    case Operation::kDiscard:
      return request.Complete(Zero(request.offset, request.length));
    case Operation::kRead:
      break;
  }
  const uint64_t end = request.offset + request.length;
  if (end < request.offset || end > size_) {
    return request.Complete(
        absl::OutOfRangeError(absl::StrCat(path(), ": read at ", request.offset, " past the end")));
  }
  const Run run = FindRun(request.offset, end);
  if (run.end == end && run.page == nullptr && !run.zero) return base_.Submit(request);
  Start(Read(request), [&request](absl::Status status) { request.Complete(std::move(status)); });
}

absl::Status OverlayStorage::Write(const Request& request) {
  if (request.offset % kPageBytes != 0 || request.length != kPageBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": not one page at ", request.offset));
  }
  std::unique_ptr<Page>& page = pages_[request.offset];
  if (page == nullptr) page = std::make_unique<Page>();
  uint8_t* to = page->data();
  ForEachPiece(request.buffers, 0, kPageBytes, [&to](const uint8_t* from, size_t size) {
    std::memcpy(to, from, size);
    to += size;
  });
  size_ = std::max(size_, request.offset + kPageBytes);
  if (pages_.size() > kMaxPages) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path(), ": a log of so many changes is only replayed into the file"));
  }
  return absl::OkStatus();
}

absl::Status OverlayStorage::Zero(uint64_t offset, uint64_t length) {
  if (length == 0) return absl::OkStatus();
  uint64_t end = offset + length;
  pages_.erase(pages_.lower_bound(offset), pages_.lower_bound(end));
  size_ = std::max(size_, end);
  // Joined with what it touches.
  auto next = zeros_.upper_bound(offset);
  if (next != zeros_.begin() && std::prev(next)->second >= offset) --next;
  while (next != zeros_.end() && next->first <= end) {
    offset = std::min(offset, next->first);
    end = std::max(end, next->second);
    next = zeros_.erase(next);
  }
  zeros_.emplace(offset, end);
  if (zeros_.size() > kMaxZeroRanges) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path(), ": a log of so many changes is only replayed into the file"));
  }
  return absl::OkStatus();
}

OverlayStorage::Run OverlayStorage::FindRun(uint64_t offset, uint64_t end) const {
  auto page = pages_.upper_bound(offset);
  if (page != pages_.begin()) {
    const auto before = std::prev(page);
    if (offset < before->first + kPageBytes) {
      return {.end = std::min(end, before->first + kPageBytes), .page = before->second.get()};
    }
  }
  if (page != pages_.end()) end = std::min(end, page->first);
  auto zero = zeros_.upper_bound(offset);
  if (zero != zeros_.begin()) {
    const auto before = std::prev(zero);
    if (offset < before->second) return {.end = std::min(end, before->second), .zero = true};
  }
  if (zero != zeros_.end()) end = std::min(end, zero->first);
  // Past the end of the file there is nothing.
  if (offset >= base_.size()) return {.end = end, .zero = true};
  return {.end = std::min(end, base_.size())};
}

Task<absl::Status> OverlayStorage::Read(const Request& request) {
  const uint64_t end = request.offset + request.length;
  for (uint64_t at = request.offset; at < end;) {
    const Run run = FindRun(at, end);
    const uint64_t skip = at - request.offset;
    const uint64_t length = run.end - at;
    if (run.page != nullptr) {
      CopyInto(request.buffers, skip, std::span(*run.page).subspan(at % kPageBytes, length));
    } else if (run.zero) {
      FillZero(request.buffers, skip, length);
    } else {
      const std::vector<iovec> slice = Slice(request.buffers, skip, length);
      absl::Status status = co_await SubmitAwaiter<Storage>(base_, Operation::kRead, at, length,
                                                            std::span<const iovec>(slice));
      CO_RETURN_IF_ERROR(status);
    }
    at = run.end;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> OverlayStorage::Resize(uint64_t bytes) {
  size_ = std::max(size_, bytes);
  co_return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
