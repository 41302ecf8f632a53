#include "disk/testing/memory_storage.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace bothy::disk {

void MemoryStorage::Submit(Request& request) {
  if (options_.immediate) return request.Complete(Perform(request));
  waiting_.push_back(&request);
}

bool MemoryStorage::Pump() {
  if (waiting_.empty()) return false;
  const size_t index = options_.seed == 0 ? 0 : random_() % waiting_.size();
  Request* request = waiting_[index];
  waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(index));
  request->Complete(Perform(*request));
  return true;
}

absl::Status MemoryStorage::Perform(Request& request) {
  if (on_request) RETURN_IF_ERROR(on_request(request));
  if (request.operation == Operation::kFlush) return absl::OkStatus();
  if (request.operation != Operation::kRead && options_.read_only) {
    return absl::PermissionDeniedError(absl::StrCat(options_.path, ": read-only"));
  }
  const uint64_t end = request.offset + request.length;
  if (end < request.offset) return absl::InvalidArgumentError("wraps around");
  if (request.operation == Operation::kRead) {
    if (end > size_) {
      return absl::OutOfRangeError(
          absl::StrCat(options_.path, ": read at ", request.offset, " past the end, ", size_));
    }
    uint64_t at = request.offset;
    for (const iovec& buffer : request.buffers) {
      Peek(at, {static_cast<uint8_t*>(buffer.iov_base), buffer.iov_len});
      at += buffer.iov_len;
    }
    return absl::OkStatus();
  }
  if (end > options_.max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(options_.path, ": full at ", end));
  }
  if (request.operation == Operation::kWrite) {
    uint64_t at = request.offset;
    for (const iovec& buffer : request.buffers) {
      Poke(at, {static_cast<const uint8_t*>(buffer.iov_base), buffer.iov_len});
      at += buffer.iov_len;
    }
    return absl::OkStatus();
  }
  Zero(request.offset, std::min(request.length, size_ - std::min(size_, request.offset)));
  if (request.operation == Operation::kWriteZeroes) size_ = std::max(size_, end);
  return absl::OkStatus();
}

Task<absl::Status> MemoryStorage::Resize(uint64_t bytes) {
  if (on_resize) {
    absl::Status status = on_resize(bytes);
    if (!status.ok()) co_return status;
  }
  if (bytes > options_.max_bytes) {
    co_return absl::ResourceExhaustedError(absl::StrCat(options_.path, ": full at ", bytes));
  }
  Truncate(bytes);
  co_return absl::OkStatus();
}

void MemoryStorage::Peek(uint64_t offset, std::span<uint8_t> bytes) const {
  while (!bytes.empty()) {
    const uint64_t within = offset % kChunkBytes;
    const size_t part = std::min<uint64_t>(bytes.size(), kChunkBytes - within);
    const auto chunk = chunks_.find(offset / kChunkBytes);
    if (chunk == chunks_.end()) {
      std::memset(bytes.data(), 0, part);
    } else {
      std::memcpy(bytes.data(), chunk->second.data() + within, part);
    }
    bytes = bytes.subspan(part);
    offset += part;
  }
}

void MemoryStorage::Poke(uint64_t offset, std::span<const uint8_t> bytes) {
  size_ = std::max<uint64_t>(size_, offset + bytes.size());
  while (!bytes.empty()) {
    const uint64_t within = offset % kChunkBytes;
    const size_t part = std::min<uint64_t>(bytes.size(), kChunkBytes - within);
    std::vector<uint8_t>& chunk = chunks_[offset / kChunkBytes];
    chunk.resize(kChunkBytes);
    std::memcpy(chunk.data() + within, bytes.data(), part);
    bytes = bytes.subspan(part);
    offset += part;
  }
}

void MemoryStorage::Zero(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  auto chunk = chunks_.lower_bound(offset / kChunkBytes);
  while (chunk != chunks_.end() && chunk->first * kChunkBytes < end) {
    const uint64_t base = chunk->first * kChunkBytes;
    const uint64_t from = std::max(offset, base) - base;
    const uint64_t to = std::min(end, base + kChunkBytes) - base;
    if (from == 0 && to == kChunkBytes) {
      chunk = chunks_.erase(chunk);
    } else {
      std::memset(chunk->second.data() + from, 0, to - from);
      ++chunk;
    }
  }
}

void MemoryStorage::Truncate(uint64_t bytes) {
  if (bytes < size_) Zero(bytes, size_ - bytes);
  size_ = bytes;
}

}  // namespace bothy::disk
