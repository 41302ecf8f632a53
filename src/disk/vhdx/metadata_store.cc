#include "disk/vhdx/metadata_store.h"

#include <algorithm>
#include <cstring>

#include "disk/vhdx/gather.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

MetadataStore::MetadataStore(Storage& storage, HeaderStore& headers, uint32_t cache_bytes)
    : storage_(storage),
      log_(storage, headers),
      max_held_(log_.max_pages()),
      max_pages_(std::max<size_t>(cache_bytes / kPageBytes, 16)),
      flushed_bytes_(storage.size()) {}

MetadataStore::~MetadataStore() { CHECK(!running_ && reserved_ == 0); }

// --- Pages ---

Task<absl::StatusOr<MetadataStore::PageRef>> MetadataStore::Load(uint64_t offset) {
  CHECK(offset % kPageBytes == 0);
  const uint64_t key = offset / kPageBytes;
  while (true) {
    const auto found = pages_.find(key);
    if (found == pages_.end()) break;
    if (found->second->loaded) {
      found->second->used = true;
      co_return PageRef(found->second.get());
    }
    co_await loaded_.Wait();
  }
  MakeRoomForPage();
  auto owned = std::make_unique<Page>();
  owned->offset = offset;
  PageRef page(owned.get());
  pages_.emplace(key, std::move(owned));
  absl::Status status = co_await ReadAt(storage_, offset, std::span<uint8_t>(page->bytes));
  if (status.ok()) {
    page->loaded = true;
    page->used = true;
    sweep_.push_back(key);
  } else {
    page = PageRef();
    pages_.erase(key);
  }
  loaded_.WakeAll();
  CO_RETURN_IF_ERROR(status);
  co_return page;
}

void MetadataStore::MakeRoomForPage() {
  // Two rounds: the first one may only find pages that were used since the last.
  for (size_t left = 2 * sweep_.size(); left > 0 && sweep_.size() >= max_pages_; --left) {
    if (hand_ >= sweep_.size()) hand_ = 0;
    const auto found = pages_.find(sweep_[hand_]);
    Page& page = *found->second;
    if (page.pins == 0 && !page.held() && !page.used) {
      pages_.erase(found);
      sweep_[hand_] = sweep_.back();
      sweep_.pop_back();
      continue;
    }
    page.used = false;
    ++hand_;
  }
}

// --- Dirty pages ---

Task<absl::Status> MetadataStore::Reserve(uint32_t pages) {
  CHECK(pages <= max_held_);
  while (!TryReserve(pages)) {
    const uint64_t failures = failures_;
    ++room_wanted_;
    Wake();
    const bool reserved = TryReserve(pages);
    // Room comes from commits, from flushes, and from others who release what they didn't use.
    if (!reserved && failures == failures_) co_await room_.Wait();
    --room_wanted_;
    if (reserved) break;
    if (failures != failures_ && !TryReserve(pages)) co_return failure_;
    if (failures != failures_) break;
  }
  co_return absl::OkStatus();
}

void MetadataStore::Release(uint32_t pages) {
  CHECK(pages <= reserved_);
  reserved_ -= pages;
  if (room_wanted_ > 0) room_.WakeAll();
}

void MetadataStore::MakeDirty(Page& page) {
  if (page.dirty) return;
  if (!page.held()) ++held_;
  page.dirty = true;
  dirty_.push_back(&page);
}

void MetadataStore::MarkDirty(Page& page, Order order) {
  MakeDirty(page);
  if (order == Order::kAfterData) after_data_ = true;
  if (held_ > max_held_ / 2 && !dirty_.empty()) StartCommit();
}

void MetadataStore::ReleaseIfSettled(Page& page) {
  if (!page.held()) --held_;
}

void MetadataStore::Fail(const absl::Status& status) {
  failure_ = status;
  ++failures_;
  room_.WakeAll();
}

// --- Commits ---

void MetadataStore::Wake() {
  if (running_) return;
  running_ = true;
  Start(Run(), [](const absl::Status&) {});
}

void MetadataStore::StartCommit() {
  commit_wanted_ = true;
  Wake();
}

Task<absl::Status> MetadataStore::Commit() {
  if (!dirty_.empty()) {
    const uint64_t generation = generation_ + 1;
    StartCommit();
    co_return co_await WaitFor(generation);
  }
  // What is being appended was copied before; its flush may have begun before, too.
  const uint64_t generation = generation_;
  const bool appending = appending_;
  absl::Status status = co_await FlushStorage();
  if (status.ok() && appending) status = co_await WaitFor(generation);
  co_return status;
}

Task<absl::Status> MetadataStore::WaitFor(uint64_t generation) {
  while (durable_generation_ < generation && failed_generation_ < generation) {
    co_await committed_.Wait();
  }
  if (durable_generation_ >= generation) co_return absl::OkStatus();
  co_return failure_;
}

Task<absl::Status> MetadataStore::Run() {
  // Each round is asked for by somebody who hasn't heard of a failure yet, so that a storage that
  // keeps failing doesn't keep this going.
  absl::Status status;
  while (true) {
    if ((commit_wanted_ || room_wanted_ > 0) && !dirty_.empty()) {
      status = co_await CommitOnce();
    } else if (room_wanted_ > 0 && !unsettled_.empty()) {
      status = co_await FlushStorage();
    } else {
      break;
    }
  }
  commit_wanted_ = false;
  running_ = false;
  idle_.WakeAll();
  co_return status;
}

MetadataStore::Snapshot MetadataStore::TakeSnapshot() {
  Snapshot snapshot;
  snapshot.generation = ++generation_;
  snapshot.after_data = std::exchange(after_data_, false);
  snapshot.bytes.resize(dirty_.size() * kPageBytes);
  uint8_t* to = snapshot.bytes.data();
  for (Page* page : std::exchange(dirty_, {})) {
    page->dirty = false;
    page->committing = true;
    std::memcpy(to, page->bytes.data(), kPageBytes);
    to += kPageBytes;
    snapshot.pages.emplace_back(page);
  }
  return snapshot;
}

Task<absl::Status> MetadataStore::AppendSnapshot(const Snapshot& snapshot) {
  absl::Status status;
  if (snapshot.after_data) {
    status = co_await FlushStorage();
    CO_RETURN_IF_ERROR(status);
  }
  std::vector<PageWrite> writes;
  for (size_t i = 0; i < snapshot.pages.size(); ++i) {
    writes.push_back({.file_offset = snapshot.pages[i]->offset,
                      .bytes = snapshot.bytes.data() + i * kPageBytes});
  }
  const FlushTicket ticket = BeginFlush();
  const LogWriter::FileSizes sizes = {.flushed = flushed_bytes_, .last = structures_end_};
  status = co_await log_.Append(writes, sizes);
  EndFlush(ticket, status);
  co_return status;
}

Task<absl::Status> MetadataStore::CommitOnce() {
  commit_wanted_ = false;
  const Snapshot snapshot = TakeSnapshot();
  appending_ = true;
  absl::Status status = co_await AppendSnapshot(snapshot);
  appending_ = false;
  if (!status.ok()) {
    for (const PageRef& page : snapshot.pages) {
      MakeDirty(*page);
      page->committing = false;
    }
    after_data_ = after_data_ || snapshot.after_data;
    failed_generation_ = snapshot.generation;
    Fail(status);
    committed_.WakeAll();
    co_return status;
  }
  durable_generation_ = snapshot.generation;
  committed_.WakeAll();
  if (on_durable_) on_durable_();
  co_return co_await WriteInPlace(snapshot);
}

Task<absl::Status> MetadataStore::WriteInPlace(const Snapshot& snapshot) {
  const uint64_t entry = log_.last_entry();
  Gather writes;
  for (size_t i = 0; i < snapshot.pages.size(); ++i) {
    // A request's buffers aren't const, though a write leaves them alone.
    auto* bytes = const_cast<uint8_t*>(snapshot.bytes.data()) + i * kPageBytes;
    writes.Add(storage_, Operation::kWrite, snapshot.pages[i]->offset, kPageBytes,
               {iovec{.iov_base = bytes, .iov_len = kPageBytes}});
  }
  absl::Status status = co_await writes.Wait();
  for (size_t i = 0; i < snapshot.pages.size(); ++i) {
    Page& page = *snapshot.pages[i];
    if (!writes.status_of(i).ok()) {
      // It will be in the next entry, so that the log needn't keep this one for it.
      MakeDirty(page);
    } else if (!page.unsettled) {
      page.unsettled = true;
      unsettled_.push_back(&page);
    }
    page.unsettled_entry = entry;
    page.committing = false;
  }
  in_place_entry_ = entry;
  if (!status.ok()) Fail(status);
  co_return status;
}

// --- Flushes ---

MetadataStore::FlushTicket MetadataStore::BeginFlush() const {
  return {.entry = in_place_entry_, .file_bytes = storage_.size()};
}

void MetadataStore::EndFlush(const FlushTicket& ticket, const absl::Status& status) {
  if (status.ok()) {
    flushed_bytes_ = std::max(flushed_bytes_, ticket.file_bytes);
    log_.AppliedUpTo(ticket.entry);
  }
  std::erase_if(unsettled_, [&](Page* page) {
    if (!status.ok()) {
      // The host may have dropped what it couldn't write, and say that the next flush went well.
      MakeDirty(*page);
    } else if (page->unsettled_entry > ticket.entry) {
      return false;
    }
    page->unsettled = false;
    ReleaseIfSettled(*page);
    return true;
  });
  if (!status.ok()) {
    Fail(status);
  } else if (room_wanted_ > 0) {
    room_.WakeAll();
  }
}

Task<absl::Status> MetadataStore::FlushStorage() {
  const FlushTicket ticket = BeginFlush();
  absl::Status status = co_await Flush(storage_);
  EndFlush(ticket, status);
  co_return status;
}

Task<absl::Status> MetadataStore::WaitUntilIdle() {
  while (running_) co_await idle_.Wait();
  co_return absl::OkStatus();
}

Task<absl::Status> MetadataStore::Finish() {
  absl::Status status = co_await Commit();
  absl::Status idle = co_await WaitUntilIdle();
  CO_RETURN_IF_ERROR(status);
  if (!dirty_.empty()) co_return failure_;
  status = co_await FlushStorage();
  CO_RETURN_IF_ERROR(status);
  co_return co_await log_.Finish();
}

}  // namespace bothy::disk::vhdx
