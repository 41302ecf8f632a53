#include "disk/testing/fake_disk.h"

#include <algorithm>
#include <array>
#include <utility>

namespace bothy::disk {

FakeDisk::FakeDisk(Options options)
    : options_(std::move(options)),
      storage_({.path = options_.path, .immediate = options_.immediate, .seed = options_.seed}) {
  storage_.Truncate(options_.geometry.size_bytes);
}

void FakeDisk::Submit(Request& request) {
  if (absl::Status status = CheckRequest(options_.geometry, request); !status.ok()) {
    return request.Complete(std::move(status));
  }
  storage_.Submit(request);
}

absl::StatusOr<FakeDisk::Run> FakeDisk::FindRun(uint64_t offset) const {
  const uint64_t size = options_.geometry.size_bytes;
  if (offset >= size) return absl::InvalidArgumentError("past the end");
  Run run;
  run.length = std::min(kExtentBytes - offset % kExtentBytes, size - offset);
  std::array<uint8_t, kExtentBytes> bytes{};
  const std::span<uint8_t> here = std::span(bytes).first(run.length);
  storage_.Peek(offset, here);
  run.zero = std::all_of(here.begin(), here.end(), [](uint8_t byte) { return byte == 0; });
  return run;
}

Task<absl::StatusOr<Extent>> FakeDisk::MapExtent(uint64_t offset) {
  if (!map_status.ok()) co_return map_status;
  if (map_extent) co_return map_extent(offset);
  const absl::StatusOr<Run> run = FindRun(offset);
  if (!run.ok()) co_return run.status();
  co_return Extent{.kind = run->zero ? Extent::Kind::kZero : Extent::Kind::kOpaque,
                   .length = run->length};
}

Task<absl::StatusOr<Presence>> FakeDisk::FindPresence(uint64_t offset) {
  if (!presence_status.ok()) co_return presence_status;
  const absl::StatusOr<Run> run = FindRun(offset);
  if (!run.ok()) co_return run.status();
  co_return Presence{.kind = run->zero ? Presence::Kind::kZero : Presence::Kind::kHere,
                     .length = run->length};
}

Task<void> FakeDisk::Settle() {
  while (flushes_to_settle > 0) {
    --flushes_to_settle;
    (void)co_await Flush(storage_);
  }
}

absl::Status FakeDisk::Refresh() {
  if (!size_after_refresh.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(options_.geometry.size_bytes, *size_after_refresh);
  storage_.Truncate(options_.geometry.size_bytes);
  return absl::OkStatus();
}

Task<absl::Status> FakeDisk::Close() {
  CHECK(storage_.waiting() == 0);
  co_return absl::OkStatus();
}

std::vector<Fact> FakeDisk::Facts() const {
  return {{.name = "resident_bytes", .value = uint64_t{storage_.resident_bytes()}}};
}

}  // namespace bothy::disk
