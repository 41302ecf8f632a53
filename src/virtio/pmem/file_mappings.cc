#include "virtio/pmem/file_mappings.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <coroutine>
#include <cstring>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bothy::virtio {
namespace {

// What stops being allocated room of the file's own: shared extents are copied when they are
// written, encoded ones written anew.
constexpr uint32_t kNeedsRoom = FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_ENCODED;
constexpr uint32_t kExtentsAtOnce = 32;

// Advances `run` over the extents of one answer; true when the run is complete.
bool Extend(std::span<const fiemap_extent> extents, uint64_t end, FileRun& run, bool& found) {
  for (const fiemap_extent& extent : extents) {
    const bool own = (extent.fe_flags & kNeedsRoom) == 0;
    const uint64_t extent_begin = std::max<uint64_t>(extent.fe_logical, run.begin);
    const uint64_t extent_end = std::min<uint64_t>(extent.fe_logical + extent.fe_length, end);
    if (extent_begin >= extent_end) continue;
    if (!found) {
      if (!own) continue;
      found = true;
      run = {.begin = extent_begin, .end = extent_end};
    } else {
      if (!own || extent_begin > run.end) return true;
      run.end = std::max(run.end, extent_end);
    }
  }
  return extents.size() < kExtentsAtOnce || run.end == end;
}

// False when the file system has no such thing.
bool FindByExtents(int fd, uint64_t begin, uint64_t end, FileRun& run) {
  run = {.begin = begin, .end = begin};
  bool found = false;
  uint64_t next = begin;
  std::vector<fiemap_extent> buffer(1 + kExtentsAtOnce);  // the first has room for the head
  static_assert(sizeof(fiemap) <= sizeof(fiemap_extent));
  while (next < end) {
    auto* const query = reinterpret_cast<fiemap*>(buffer.data());
    std::memset(query, 0, sizeof *query);
    query->fm_start = next;
    query->fm_length = end - next;
    query->fm_extent_count = kExtentsAtOnce;
    if (::ioctl(fd, FS_IOC_FIEMAP, query) != 0) return false;
    const std::span<const fiemap_extent> extents(query->fm_extents, query->fm_mapped_extents);
    if (Extend(extents, end, run, found)) break;
    next = extents.back().fe_logical + extents.back().fe_length;
  }
  if (!found) run = {.begin = end, .end = end};
  return true;
}

FileRun FindBySeeking(int fd, uint64_t begin, uint64_t end) {
  const off_t data = ::lseek(fd, static_cast<off_t>(begin), SEEK_DATA);
  if (data < 0) {
    // ENXIO: nothing but a hole up to the end.
    return errno == ENXIO ? FileRun{.begin = end, .end = end} : FileRun{.begin = begin, .end = end};
  }
  const auto from = std::min(static_cast<uint64_t>(data), end);
  const off_t hole = ::lseek(fd, data, SEEK_HOLE);
  const uint64_t to = hole < 0 ? end : std::min(static_cast<uint64_t>(hole), end);
  return {.begin = from, .end = to};
}

FileRun Find(int fd, uint64_t begin, uint64_t end) {
  struct stat status {};
  const bool file = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (!file) return {.begin = begin, .end = end};
  if (FileRun run; FindByExtents(fd, begin, end, run)) return run;
  return FindBySeeking(fd, begin, end);
}

class FindOperation final : private IoLoop::Operation {
 public:
  FindOperation(IoLoop& loop, int fd, uint64_t begin, uint64_t end)
      : loop_(loop), fd_(fd), begin_(begin), end_(end) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    // A file system may have to read its metadata.
    loop_.RunBlocking(
        [this]() -> int64_t {
          run_ = Find(fd_, begin_, end_);
          return 0;
        },
        *this);
  }
  [[nodiscard]] FileRun await_resume() const { return run_; }

 private:
  void Complete(int64_t /*result*/) override { waiting_.resume(); }

  IoLoop& loop_;
  const int fd_;
  const uint64_t begin_;
  const uint64_t end_;
  FileRun run_;
  std::coroutine_handle<> waiting_;
};

}  // namespace

Task<FileRun> FindAllocated(IoLoop& loop, int fd, uint64_t begin, uint64_t end) {
  FindOperation operation(loop, fd, begin, end);
  const FileRun run = co_await operation;
  co_return run;
}

bool FileMappings::Map(const PageRun& run, int fd, uint64_t file_offset) {
  const auto joins = [](uint64_t offset, const Mapped& first, uint64_t next_offset,
                        const Mapped& next) {
    return offset + first.length == next_offset && first.fd == next.fd &&
           first.file_offset + first.length == next.file_offset;
  };
  Mapped mapped = {.length = run.length, .fd = fd, .file_offset = file_offset};
  uint64_t offset = run.offset;
  const auto next = runs_.upper_bound(offset);
  const bool joins_next = next != runs_.end() && joins(offset, mapped, next->first, next->second);
  const auto before = next == runs_.begin() ? runs_.end() : std::prev(next);
  const bool joins_before =
      before != runs_.end() && joins(before->first, before->second, offset, mapped);
  if (!joins_next && !joins_before && runs_.size() >= max_mappings_) return false;

  const int protection = PROT_READ | (writable_ ? PROT_WRITE : 0);
  if (::mmap(window_.data() + run.offset, run.length, protection, MAP_SHARED | MAP_FIXED, fd,
             static_cast<off_t>(file_offset)) == MAP_FAILED) {
    return false;
  }
  bytes_.fetch_add(run.length, std::memory_order_relaxed);
  if (joins_next) {
    mapped.length += next->second.length;
    runs_.erase(next);
  }
  if (joins_before) {
    before->second.length += mapped.length;
  } else {
    runs_.emplace(offset, mapped);
  }
  count_.store(runs_.size(), std::memory_order_relaxed);
  return true;
}

void FileMappings::Forget(const PageRun& run) {
  const auto forgotten = runs_.find(run.offset);
  const Mapped& mapped = forgotten->second;
  uint64_t& end = forgotten_ends_[mapped.fd];
  end = std::max(end, mapped.file_offset + mapped.length);
  unsynced_.insert(mapped.fd);
  runs_.erase(forgotten);
  bytes_.fetch_sub(run.length, std::memory_order_relaxed);
  count_.store(runs_.size(), std::memory_order_relaxed);
}

bool FileMappings::Contains(uint64_t offset) const {
  const auto next = runs_.upper_bound(offset);
  if (next == runs_.begin()) return false;
  const auto& [begin, mapped] = *std::prev(next);
  return offset - begin < mapped.length;
}

std::vector<PageRun> FileMappings::Runs() const {
  std::vector<PageRun> runs;
  for (const auto& [offset, mapped] : runs_) {
    runs.push_back({.offset = offset, .length = mapped.length});
  }
  return runs;
}

std::vector<int> FileMappings::TakeUnsynced() {
  std::set<int> descriptors = std::exchange(unsynced_, {});
  for (const auto& [offset, mapped] : runs_) descriptors.insert(mapped.fd);
  return {descriptors.begin(), descriptors.end()};
}

std::vector<PageRun> FileMappings::TruncatedRuns() const {
  std::map<int, uint64_t> sizes;
  std::vector<PageRun> runs;
  for (const auto& [offset, mapped] : runs_) {
    if (!sizes.contains(mapped.fd)) {
      struct stat status {};
      const bool file = ::fstat(mapped.fd, &status) == 0 && S_ISREG(status.st_mode);
      sizes[mapped.fd] = file ? static_cast<uint64_t>(status.st_size) : UINT64_MAX;
    }
    if (mapped.file_offset + mapped.length > sizes[mapped.fd]) {
      runs.push_back({.offset = offset, .length = mapped.length});
    }
  }
  return runs;
}

absl::Status FileMappings::Check() const {
  std::map<int, uint64_t> ends = forgotten_ends_;
  for (const int fd : watched_) ends.try_emplace(fd, 0);
  for (const auto& [offset, mapped] : runs_) {
    uint64_t& end = ends[mapped.fd];
    end = std::max(end, mapped.file_offset + mapped.length);
  }
  for (const auto& [fd, end] : ends) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return ErrnoStatus(errno, "asking a mapped image's size");
    if (!S_ISREG(status.st_mode)) continue;
    if (status.st_nlink == 0) {
      return absl::FailedPreconditionError("the image's file was deleted on the host");
    }
    if (static_cast<uint64_t>(status.st_size) < end) {
      return absl::DataLossError(absl::StrCat("the image's file was truncated on the host to ",
                                              status.st_size, " bytes; ", end, " are in use"));
    }
  }
  return absl::OkStatus();
}

}  // namespace bothy::virtio
