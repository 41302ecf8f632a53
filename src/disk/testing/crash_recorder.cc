#include "disk/testing/crash_recorder.h"

#include <algorithm>

namespace bothy::disk {
namespace {

constexpr uint64_t kSectorBytes = 512;

}  // namespace

CrashRecorder::CrashRecorder(MemoryStorage& memory)
    : memory_(memory), base_size_(memory.size()), base_(memory.chunks()) {
  memory_.on_request = [this](const Request& request) {
    Record(request);
    return absl::OkStatus();
  };
  memory_.on_resize = [this](uint64_t bytes) {
    events_.push_back({.kind = Kind::kResize, .offset = 0, .length = bytes, .bytes = {}});
    return absl::OkStatus();
  };
}

CrashRecorder::~CrashRecorder() {
  memory_.on_request = nullptr;
  memory_.on_resize = nullptr;
}

void CrashRecorder::Submit(Request& request) {
  if (request.operation == Operation::kFlush) flushing_[&request] = events_.size();
  memory_.Submit(request);
}

void CrashRecorder::Record(const Request& request) {
  if (request.operation == Operation::kRead) return;
  if (request.operation == Operation::kFlush) {
    const auto begun = flushing_.find(&request);
    flushes_.push_back({.at = events_.size(), .covered = begun->second});
    flushing_.erase(begun);
    return;
  }
  Event event;
  event.offset = request.offset;
  event.length = request.length;
  event.kind = request.operation == Operation::kWrite ? Kind::kWrite : Kind::kZero;
  event.extends = request.operation != Operation::kDiscard;
  for (const iovec& buffer : request.buffers) {
    const auto* data = static_cast<const uint8_t*>(buffer.iov_base);
    event.bytes.insert(event.bytes.end(), data, data + buffer.iov_len);
  }
  events_.push_back(std::move(event));
}

void CrashRecorder::Apply(const Event& event, uint64_t begin, uint64_t end, MemoryStorage& to) {
  if (event.kind == Kind::kWrite) {
    to.Poke(begin, std::span<const uint8_t>(event.bytes)
                       .subspan(begin - event.offset, static_cast<size_t>(end - begin)));
    return;
  }
  if (!event.extends) end = std::min(end, to.size());
  if (begin >= end) return;
  const std::vector<uint8_t> zeros(end - begin);
  to.Poke(begin, zeros);
}

void CrashRecorder::Replay(size_t count, uint64_t seed, MemoryStorage& to) const {
  size_t durable = 0;
  for (const FlushDone& flush : flushes_) {
    if (flush.at < count) durable = std::max(durable, flush.covered);
  }
  std::mt19937_64 random(seed);
  for (const auto& [index, bytes] : base_) to.Poke(index * MemoryStorage::kChunkBytes, bytes);
  to.Truncate(base_size_);
  for (size_t i = 0; i < count; ++i) {
    const Event& event = events_[i];
    const bool keep = i < durable || seed == 0;
    // Whole, lost, or torn.
    const uint64_t fate = keep ? 0 : random() % 3;
    if (event.kind == Kind::kResize) {
      if (fate != 1) to.Truncate(event.length);
      continue;
    }
    const uint64_t end = event.offset + event.length;
    if (fate == 0) Apply(event, event.offset, end, to);
    if (fate != 2) continue;
    for (uint64_t at = event.offset; at < end;) {
      const uint64_t next = std::min(at / kSectorBytes * kSectorBytes + kSectorBytes, end);
      if (random() % 2 == 0) Apply(event, at, next, to);
      at = next;
    }
  }
}

}  // namespace bothy::disk
