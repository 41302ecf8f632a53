#include "disk/data_survey.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/zero_bytes.h"

namespace bothy::disk {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;

// The part of a file's bytes that is data, or that is a hole.
DataRun FindFileRun(int fd, uint64_t offset, uint64_t length) {
  DataRun run = {.is_zero = false, .length = length};
  const auto begin = static_cast<off_t>(offset);
  const off_t data = ::lseek(fd, begin, SEEK_DATA);
  if (data < 0) {
    // ENXIO: nothing but a hole up to the file's end. Anything else: it can't be known.
    run.is_zero = errno == ENXIO;
    return run;
  }
  if (data > begin) {
    run.is_zero = true;
    run.length = std::min<uint64_t>(run.length, static_cast<uint64_t>(data - begin));
    return run;
  }
  const off_t hole = ::lseek(fd, begin, SEEK_HOLE);
  if (hole > begin) {
    run.length = std::min<uint64_t>(run.length, static_cast<uint64_t>(hole - begin));
  }
  return run;
}

Task<absl::StatusOr<DataRun>> FindRun(Storage& storage, uint64_t offset) {
  const uint64_t length = storage.size() - offset;
  if (storage.fd() < 0) co_return DataRun{.is_zero = false, .length = length};
  co_return FindFileRun(storage.fd(), offset, length);
}

// The one loop behind both.
template <typename Target>
Task<absl::StatusOr<bool>> IsZeroBetween(Target& target, uint64_t begin, uint64_t end,
                                         const SurveyOptions& options) {
  std::vector<uint8_t> chunk;
  DataRun run;
  for (uint64_t at = begin; at < end;) {
    if (options.stop.stop_requested()) co_return NothingChanged();
    if (run.length == 0) {
      absl::StatusOr<DataRun> found = co_await FindRun(target, at);
      CO_ASSIGN_OR_RETURN(run, found);
      run.length = std::min(run.length, end - at);
    }
    const uint64_t length = run.is_zero ? run.length : std::min(run.length, kChunkBytes);
    if (!run.is_zero) {
      chunk.resize(length);
      absl::Status status = co_await ReadAt(target, at, std::span<uint8_t>(chunk));
      CO_RETURN_IF_ERROR(status);
      if (!IsZero(chunk)) co_return false;
    }
    at += length;
    run.length -= length;
    if (options.progress) options.progress(at - begin, end - begin);
  }
  co_return true;
}

absl::Status OnlyZerosGo(const absl::StatusOr<bool>& zero, uint64_t size_bytes) {
  if (!zero.ok()) return zero.status();
  if (*zero) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("data past the new size of ", size_bytes, " bytes would be lost"));
}

}  // namespace

Task<absl::StatusOr<DataRun>> FindRun(Disk& disk, uint64_t offset) {
  absl::StatusOr<Extent> extent = co_await disk.MapExtent(offset);
  if (!extent.ok()) co_return extent.status();
  if (extent->kind != Extent::Kind::kFile) {
    co_return DataRun{.is_zero = extent->kind == Extent::Kind::kZero, .length = extent->length};
  }
  DataRun run = FindFileRun(extent->fd, extent->file_offset, extent->length);
  // A hole's edge isn't a sector's where a file system has smaller blocks: a sector that is a hole
  // in part is data.
  const uint64_t sector = disk.geometry().logical_sector_bytes;
  if (run.length < sector) co_return DataRun{.is_zero = false, .length = sector};
  run.length = run.length / sector * sector;
  co_return run;
}

Task<absl::StatusOr<bool>> ReadsAsZero(Disk& disk, uint64_t begin, SurveyOptions options) {
  absl::StatusOr<bool> zero =
      co_await IsZeroBetween(disk, begin, disk.geometry().size_bytes, options);
  co_return zero;
}

Task<absl::StatusOr<bool>> ReadsAsZero(Storage& storage, uint64_t begin, SurveyOptions options) {
  absl::StatusOr<bool> zero = co_await IsZeroBetween(storage, begin, storage.size(), options);
  co_return zero;
}

Task<absl::Status> RefuseToCutData(Disk& disk, uint64_t size_bytes, SurveyOptions options) {
  absl::StatusOr<bool> zero = co_await ReadsAsZero(disk, size_bytes, std::move(options));
  co_return OnlyZerosGo(zero, size_bytes);
}

Task<absl::Status> RefuseToCutData(Storage& storage, uint64_t size_bytes, SurveyOptions options) {
  absl::StatusOr<bool> zero = co_await ReadsAsZero(storage, size_bytes, std::move(options));
  co_return OnlyZerosGo(zero, size_bytes);
}

absl::Status NothingChanged() { return absl::CancelledError("nothing was changed"); }

}  // namespace bothy::disk
