#include "disk/vhdx/log_writer.h"

#include <algorithm>

#include "support/check.h"

namespace bothy::disk::vhdx {
namespace {

// A bound of memory: a copy of all pages of an entry is made twice.
constexpr uint64_t kMaxPagesOfAnEntry = 1024;

uint32_t MaxPages(uint64_t ring_bytes) {
  uint64_t pages = std::min(ring_bytes / 3 / kLogSectorBytes, kMaxPagesOfAnEntry);
  while (LogEntryBytes(pages) > ring_bytes / 3) --pages;
  return static_cast<uint32_t>(pages);
}

}  // namespace

LogWriter::LogWriter(Storage& storage, HeaderStore& headers)
    : storage_(storage), headers_(headers), max_pages_(MaxPages(headers.current().log_length)) {}

Task<absl::Status> LogWriter::Append(std::span<const PageWrite> pages, FileSizes sizes) {
  CHECK(!pages.empty() && pages.size() <= max_pages_);
  // Until the header names it, this is nothing that a reader looks at.
  if (guid_.is_zero()) {
    CHECK(headers_.current().log_guid.is_zero());
    guid_ = Guid::Random();
  }
  LogEntryHeader header;
  header.sequence_number = next_sequence_;
  header.log_guid = guid_;
  header.tail = static_cast<uint32_t>(head_);
  for (const Entry& entry : sequence_) {
    if (entry.sequence_number <= applied_) continue;
    header.tail = static_cast<uint32_t>(entry.offset);
    break;
  }
  header.flushed_file_offset = RoundDown(sizes.flushed, kMiB);
  header.last_file_offset = RoundUp(sizes.last, kMiB);
  const std::vector<uint8_t> bytes = BuildLogEntry(header, pages);
  uint64_t used = 0;
  for (const Entry& entry : sequence_) used += entry.length;
  CHECK(used + bytes.size() <= ring_bytes());

  absl::Status status = co_await WriteRing(head_, bytes);
  CO_RETURN_IF_ERROR(status);
  status = co_await Flush(storage_);
  CO_RETURN_IF_ERROR(status);
  sequence_.push_back({.sequence_number = next_sequence_, .offset = head_, .length = bytes.size()});
  while (sequence_.front().offset != header.tail) sequence_.pop_front();
  head_ = (head_ + bytes.size()) % ring_bytes();
  ++next_sequence_;
  if (!announced_) {
    // When this fails the header may name the log or not: the entry stays until there is a next
    // one, so that there is a valid one in either case.
    const HeaderStore::Change change = {.data_write_guid = nullptr, .log_guid = &guid_};
    status = co_await headers_.Update(storage_, change);
    if (!status.ok()) {
      applied_ = last_entry();
      co_return status;
    }
    announced_ = true;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> LogWriter::WriteRing(uint64_t at, std::span<const uint8_t> bytes) {
  const uint64_t log = headers_.current().log_offset;
  const uint64_t before_wrap = std::min<uint64_t>(bytes.size(), ring_bytes() - at);
  absl::Status status = co_await WriteAt(storage_, log + at, bytes.first(before_wrap));
  if (status.ok() && before_wrap < bytes.size()) {
    status = co_await WriteAt(storage_, log, bytes.subspan(before_wrap));
  }
  co_return status;
}

void LogWriter::AppliedUpTo(uint64_t sequence_number) {
  CHECK(sequence_number <= last_entry());
  applied_ = std::max(applied_, sequence_number);
}

Task<absl::Status> LogWriter::Finish() {
  if (guid_.is_zero()) co_return absl::OkStatus();
  CHECK(applied_ == last_entry());
  const Guid none;
  const HeaderStore::Change change = {.data_write_guid = nullptr, .log_guid = &none};
  absl::Status status = co_await headers_.Update(storage_, change);
  CO_RETURN_IF_ERROR(status);
  guid_ = none;
  announced_ = false;
  sequence_.clear();
  co_return absl::OkStatus();
}

}  // namespace bothy::disk::vhdx
