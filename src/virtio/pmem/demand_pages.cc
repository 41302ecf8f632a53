#include "virtio/pmem/demand_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "virtio/pmem/shared_bytes.h"

namespace bothy::virtio {
namespace {

uint16_t PageBit(uint64_t offset) {
  return static_cast<uint16_t>(1U << (offset % kPmemChunkBytes / kPmemPageBytes));
}

// Calls `take` with the first page and the number of pages of each run of bits.
template <typename Take>
absl::Status ForEachRun(uint16_t bits, Take take) {
  while (bits != 0) {
    const int first = std::countr_zero(bits);
    const int count = std::countr_one(static_cast<uint16_t>(bits >> first));
    RETURN_IF_ERROR(take(static_cast<uint64_t>(first), static_cast<uint64_t>(count)));
    bits &= static_cast<uint16_t>(~(((1U << count) - 1) << first));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DemandPages>> DemandPages::Create(Options options) {
  CHECK(options.range.size() % kPmemPageBytes == 0);
  std::unique_ptr<DemandPages> pages(new DemandPages(std::move(options)));
  ASSIGN_OR_RETURN(pages->faults_,
                   UserFaults::Create(pages->options_.range, pages->options_.track_stores,
                                      pages->options_.thread_name, *pages));
  return pages;
}

DemandPages::~DemandPages() = default;

uint64_t DemandPages::ChunkBytes(uint64_t chunk) const {
  return std::min(kPmemChunkBytes, options_.range.size() - chunk * kPmemChunkBytes);
}

uint16_t DemandPages::PageBits(uint64_t chunk) const {
  return static_cast<uint16_t>((1U << (ChunkBytes(chunk) / kPmemPageBytes)) - 1);
}

absl::Status DemandPages::Adopt(const PageRun& run) {
  uint8_t* const at = options_.range.data() + run.offset;
  const std::lock_guard lock(mutex_);
  // Nobody may see these pages before they are registered: an access that comes now fails.
  if (::mmap(at, run.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
             0) == MAP_FAILED) {
    return ErrnoStatus(errno, absl::StrCat("mapping ", run.length, " bytes of demand pages"));
  }
  // A child process would never get its faults answered, nor would who writes a dump; and pages
  // are tracked one by one.
  ::madvise(at, run.length, MADV_DONTFORK);
  ::madvise(at, run.length, MADV_DONTDUMP);
  ::madvise(at, run.length, MADV_NOHUGEPAGE);
  RETURN_IF_ERROR(faults_->Register(run.offset, run.length));
  const int protection = PROT_READ | (options_.track_stores ? PROT_WRITE : 0);
  if (::mprotect(at, run.length, protection) != 0) {
    return ErrnoStatus(errno, absl::StrCat("opening ", run.length, " bytes of demand pages"));
  }
  return absl::OkStatus();
}

void DemandPages::OnMissing(uint64_t offset, bool store) {
  const uint64_t number = offset / kPmemChunkBytes;
  {
    const std::lock_guard lock(mutex_);
    if (retired_) return;
    const auto [at, inserted] = chunks_.try_emplace(number);
    Chunk& chunk = at->second;
    if (!chunk.fetching) return faults_->Wake(offset, kPmemPageBytes);
    if (store) chunk.wanted |= PageBit(offset);
    if (!inserted) return;
    ++stats_.fetches;
  }
  options_.fetch(number);
}

void DemandPages::OnProtected(uint64_t offset) {
  const uint64_t number = offset / kPmemChunkBytes;
  const std::lock_guard lock(mutex_);
  if (retired_) return;
  const auto at = chunks_.find(number);
  // Gone meanwhile: it is mapped, or about to be filled again.
  if (at == chunks_.end() || at->second.fetching) return faults_->Wake(offset, kPmemPageBytes);
  Chunk& chunk = at->second;
  ++stats_.store_faults;
  uint16_t pages = PageBit(offset);
  // Stores that go on behind a dirty page are likely to go on: no fault for each page of them.
  if ((chunk.dirty & (pages >> 1)) != 0) {
    pages = static_cast<uint16_t>(~(pages - 1)) & PageBits(number);
  }
  AddDirty(number, chunk, pages);
  const uint64_t end = offset - offset % kPmemChunkBytes + ChunkBytes(number);
  const uint64_t length = std::has_single_bit(pages) ? kPmemPageBytes : end - offset;
  // Fails only when something else was mapped there; then there is nothing to unprotect.
  if (!faults_->Unprotect(offset, length).ok()) faults_->Wake(offset, kPmemPageBytes);
}

void DemandPages::AddDirty(uint64_t number, Chunk& chunk, uint16_t pages) {
  stats_.dirty_pages += std::popcount(static_cast<uint16_t>(pages & ~chunk.dirty));
  chunk.dirty |= pages;
  if (chunk.dirty == 0 || std::exchange(chunk.listed, true)) return;
  dirty_chunks_.push_back(number);
}

// The chunk's pages are there, protected but for those that stores wait for.
absl::Status DemandPages::Populated(uint64_t number, Chunk& chunk) {
  const uint64_t offset = number * kPmemChunkBytes;
  if (options_.track_stores && chunk.wanted != 0) {
    AddDirty(number, chunk, chunk.wanted);
    RETURN_IF_ERROR(ForEachRun(chunk.wanted, [&](uint64_t first, uint64_t count) {
      return faults_->Unprotect(offset + first * kPmemPageBytes, count * kPmemPageBytes);
    }));
  }
  chunk.wanted = 0;
  chunk.fetching = false;
  stats_.populated_pages += ChunkBytes(number) / kPmemPageBytes;
  faults_->Wake(offset, ChunkBytes(number));
  return absl::OkStatus();
}

absl::Status DemandPages::FinishWith(uint64_t number, std::span<const uint8_t> contents,
                                     uint16_t lost) {
  CHECK(contents.size() == ChunkBytes(number));
  const std::lock_guard lock(mutex_);
  if (retired_) return absl::OkStatus();
  Chunk& chunk = chunks_.at(number);
  RETURN_IF_ERROR(faults_->Fill(number * kPmemChunkBytes, contents, options_.track_stores));
  chunk.lost = lost;
  return Populated(number, chunk);
}

absl::Status DemandPages::FinishZero(uint64_t number) {
  const uint64_t offset = number * kPmemChunkBytes;
  const uint64_t length = ChunkBytes(number);
  const std::lock_guard lock(mutex_);
  if (retired_) return absl::OkStatus();
  Chunk& chunk = chunks_.at(number);
  RETURN_IF_ERROR(faults_->FillZero(offset, length));
  if (options_.track_stores) {
    RETURN_IF_ERROR(faults_->Protect(offset, length));
    // Stores that came before the protection weren't told of, but they show: a page that is still
    // zero is as the disk has it, whoever stored zeroes there.
    uint16_t changed = 0;
    for (uint64_t page = 0; page < length; page += kPmemPageBytes) {
      if (!AllZero(options_.range.subspan(offset + page, kPmemPageBytes))) changed |= PageBit(page);
    }
    AddDirty(number, chunk, changed);
  }
  return Populated(number, chunk);
}

void DemandPages::FinishElsewhere(uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (retired_) return;
  chunks_.erase(number);
  faults_->Wake(number * kPmemChunkBytes, ChunkBytes(number));
}

bool DemandPages::FinishMapped(uint64_t number, uint64_t end,
                               const std::function<bool(const PageRun&)>& map) {
  const std::lock_guard lock(mutex_);
  if (retired_) return true;
  const auto at = chunks_.find(number);
  CHECK(at != chunks_.end());
  if (const auto next = std::next(at); next != chunks_.end()) {
    end = std::min(end, next->first * kPmemChunkBytes);
  }
  const PageRun run = {.offset = number * kPmemChunkBytes,
                       .length = end - number * kPmemChunkBytes};
  if (!map(run)) return false;
  chunks_.erase(at);
  faults_->Wake(run.offset, run.length);
  return true;
}

absl::Status DemandPages::TakeDirty(std::vector<PageRun>& runs) {
  std::vector<uint64_t> numbers;
  {
    const std::lock_guard lock(mutex_);
    numbers.swap(dirty_chunks_);
  }
  std::sort(numbers.begin(), numbers.end());
  for (size_t i = 0; i < numbers.size(); ++i) {
    // One chunk at a time: faults get their turn between.
    const std::lock_guard lock(mutex_);
    const uint64_t number = numbers[i];
    Chunk& chunk = chunks_.at(number);
    const uint16_t pages = chunk.dirty;
    // Protected first: what is stored from here on makes the page dirty again.
    if (absl::Status status = Protect(number, pages); !status.ok()) {
      dirty_chunks_.insert(dirty_chunks_.end(), numbers.begin() + static_cast<ptrdiff_t>(i),
                           numbers.end());
      return status;
    }
    chunk.dirty = 0;
    chunk.listed = false;
    stats_.dirty_pages -= std::popcount(pages);
    const auto take = [&](uint64_t first, uint64_t count) {
      const uint64_t offset = number * kPmemChunkBytes + first * kPmemPageBytes;
      const uint64_t length = count * kPmemPageBytes;
      const bool joins = !runs.empty() && runs.back().offset + runs.back().length == offset &&
                         runs.back().length + length <= kLongestRun;
      if (joins) {
        runs.back().length += length;
      } else {
        runs.push_back({.offset = offset, .length = length});
      }
      return absl::OkStatus();
    };
    CHECK_OK(ForEachRun(static_cast<uint16_t>(pages & ~chunk.lost), take));
  }
  return absl::OkStatus();
}

absl::Status DemandPages::Protect(uint64_t number, uint16_t pages) {
  return ForEachRun(pages, [&](uint64_t first, uint64_t count) {
    return faults_->Protect(number * kPmemChunkBytes + first * kPmemPageBytes,
                            count * kPmemPageBytes);
  });
}

void DemandPages::MarkDirty(const PageRun& run) {
  const std::lock_guard lock(mutex_);
  for (uint64_t offset = run.offset; offset < run.offset + run.length; offset += kPmemPageBytes) {
    const uint64_t number = offset / kPmemChunkBytes;
    // Dirty and still protected: a store to it says so once more, that is all.
    AddDirty(number, chunks_.at(number), PageBit(offset));
  }
}

bool DemandPages::Replace(const PageRun& run, const std::function<bool(const PageRun&)>& map) {
  const std::lock_guard lock(mutex_);
  const auto first = chunks_.lower_bound(run.offset / kPmemChunkBytes);
  auto at = first;
  for (uint64_t offset = run.offset; offset < run.offset + run.length; offset += kPmemChunkBytes) {
    if (at == chunks_.end() || at->first != offset / kPmemChunkBytes) return false;
    const Chunk& chunk = at->second;
    if (chunk.fetching || chunk.dirty != 0 || chunk.lost != 0) return false;
    ++at;
  }
  if (!map(run)) return false;
  stats_.populated_pages -= run.length / kPmemPageBytes;
  chunks_.erase(first, at);
  // A store that waits tries again, on what is there now.
  faults_->Wake(run.offset, run.length);
  return true;
}

void DemandPages::Retire(const std::function<void()>& replace) {
  {
    const std::lock_guard lock(mutex_);
    retired_ = true;
    replace();
    faults_->Wake(0, options_.range.size());
  }
  faults_.reset();
}

DemandPages::Stats DemandPages::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace bothy::virtio
