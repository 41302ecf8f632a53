#include "disk/host_storage.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <coroutine>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/image_lock.h"
#include "support/check.h"
#include "support/trace.h"
#include "support/unique_fd.h"

namespace bothy::disk {
namespace {

constexpr uint32_t kSectorBytes = 512;
constexpr uint32_t kPageBytes = 4096;
// What takes less isn't in the trace.
constexpr std::chrono::milliseconds kSlowFlush{1};
constexpr std::chrono::milliseconds kSlowTransfer{10};
constexpr size_t kZeroBytes = size_t{64} * 1024;
alignas(kPageBytes) constinit const std::array<uint8_t, kZeroBytes> kZeroes{};

// Awaits a call that may block.
class BlockingCall final : private IoLoop::Operation {
 public:
  BlockingCall(IoLoop& loop, std::function<int64_t()> call) : loop_(loop), call_(std::move(call)) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    loop_.RunBlocking(std::move(call_), *this);
  }
  [[nodiscard]] int64_t await_resume() const { return result_; }

 private:
  void Complete(int64_t result) override {
    result_ = result;
    waiting_.resume();
  }
  IoLoop& loop_;
  std::function<int64_t()> call_;
  std::coroutine_handle<> waiting_;
  int64_t result_ = 0;
};

const char* NameOf(Operation operation) {
  switch (operation) {
    case disk::Operation::kRead:
      return "read";
    case disk::Operation::kWrite:
      return "write";
    case disk::Operation::kFlush:
      return "flush";
    case disk::Operation::kDiscard:
      return "discard";
    case disk::Operation::kWriteZeroes:
      return "write zeroes";
  }
  return "request";
}

class HostStorage final : public Storage {
 public:
  struct Facts {
    bool block_device = false;
    bool has_name = true;  // false: a file that was made to get one later
    uint64_t size = 0;
    uint32_t logical = kSectorBytes;
    uint32_t physical = kPageBytes;
  };
  HostStorage(IoLoop& loop, std::string path, UniqueFd fd, bool read_only, const Facts& facts)
      : loop_(loop),
        path_(std::move(path)),
        fd_(std::move(fd)),
        read_only_(read_only),
        had_name_(facts.has_name && !facts.block_device),
        facts_(facts) {}
  ~HostStorage() override { CHECK(in_flight_ == 0); }

  void Submit(Request& request) override {
    if (request.operation == disk::Operation::kRead) {
      if (request.offset > facts_.size || request.length > facts_.size - request.offset) {
        return request.Complete(absl::OutOfRangeError(
            absl::StrCat(path_, ": offset ", request.offset, ": reading ", request.length,
                         " bytes past the end, ", facts_.size)));
      }
    } else if (request.operation != disk::Operation::kFlush) {
      if (read_only_) {
        return request.Complete(
            absl::PermissionDeniedError(absl::StrCat(path_, ": opened read-only")));
      }
      if (request.offset > INT64_MAX || request.length > INT64_MAX - request.offset) {
        return request.Complete(absl::InvalidArgumentError(
            absl::StrCat(path_, ": offset ", request.offset, ": past what a file can hold")));
      }
    } else if (read_only_) {
      return request.Complete(absl::OkStatus());
    }
    if (request.length == 0 && request.operation != disk::Operation::kFlush) {
      return request.Complete(absl::OkStatus());
    }
    if (spare_.empty()) spare_.push_back(std::make_unique<Transfer>(*this));
    std::unique_ptr<Transfer> transfer = std::move(spare_.back());
    spare_.pop_back();
    ++in_flight_;
    transfer.release()->Begin(request);  // ends in Finish, which takes it back
  }

  [[nodiscard]] uint64_t size() const override { return facts_.size; }

  Task<absl::Status> Resize(uint64_t bytes) override {
    if (facts_.block_device) {
      co_return absl::UnimplementedError(
          absl::StrCat(path_, ": a block device can't be resized from here"));
    }
    BlockingCall call(loop_, [fd = fd_.get(), bytes]() -> int64_t {
      return ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : -int64_t{errno};
    });
    ++resizing_;
    const int64_t result = co_await call;
    --resizing_;
    if (result < 0) {
      co_return ErrnoStatus(static_cast<int>(-result),
                            absl::StrCat(path_, ": resizing to ", bytes, " bytes"));
    }
    facts_.size = bytes;
    co_return absl::OkStatus();
  }

  absl::Status Refresh() override {
    ASSIGN_OR_RETURN(facts_, Examine(fd_.get(), path_));
    return absl::OkStatus();
  }

  [[nodiscard]] const std::string& path() const override { return path_; }
  [[nodiscard]] bool read_only() const override { return read_only_; }
  [[nodiscard]] uint32_t logical_block_bytes() const override { return facts_.logical; }
  [[nodiscard]] uint32_t physical_block_bytes() const override { return facts_.physical; }
  [[nodiscard]] int fd() const override { return fd_.get(); }

  static absl::StatusOr<Facts> Examine(int fd, const std::string& path) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return ErrnoStatus(errno, path);
    Facts facts;
    if (S_ISREG(status.st_mode)) {
      facts.size = static_cast<uint64_t>(status.st_size);
      facts.has_name = status.st_nlink != 0;
      return facts;
    }
    if (!S_ISBLK(status.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": is neither a file nor a block device"));
    }
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(fd, BLKGETSIZE64, &facts.size) != 0 || ::ioctl(fd, BLKSSZGET, &logical) != 0 ||
        ::ioctl(fd, BLKPBSZGET, &physical) != 0) {
      return ErrnoStatus(errno, absl::StrCat(path, ": asking the block device"));
    }
    facts.block_device = true;
    facts.logical = static_cast<uint32_t>(logical);
    facts.physical = std::max(physical, facts.logical);
    return facts;
  }

 private:
  // What a file without a name holds is gone with the process, and what was cut off is gone now:
  // nobody may believe it safe.
  [[nodiscard]] absl::Status CheckFile() const {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) return ErrnoStatus(errno, path_);
    if (had_name_ && status.st_nlink == 0) {
      return absl::UnavailableError(
          absl::StrCat(path_, ": the file was deleted: what is written to it will be lost"));
    }
    // Only this process changes its size (image_lock.h), and it knows that it is larger only once
    // it is. Between two flushes a write may have made it whole again, as far as that can be seen.
    const auto there = static_cast<uint64_t>(status.st_size);
    if (facts_.block_device || resizing_ || there >= facts_.size) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(path_, ": the file was truncated to ", there,
                                            " bytes by somebody else: what was behind is lost"));
  }

  // One request under way: goes on after short transfers, tries the next way where the host hasn't
  // the first.
  class Transfer final : public IoLoop::Operation {
   public:
    explicit Transfer(HostStorage& storage) : storage_(storage) {}

    void Begin(Request& request) {
      request_ = &request;
      done_ = 0;
      way_ = 0;
      blocking_ = false;
      rest_ = request.buffers;
      const bool flush = request.operation == disk::Operation::kFlush;
      if (Tracing()) {
        trace_ = TraceOperation("disk", NameOf(request.operation), storage_.path_,
                                flush ? kSlowFlush : kSlowTransfer);
      }
      Continue();
    }
    void Complete(int64_t result) override {
      if (result == -EINTR) return Continue();
      // What io_uring says of a page that it has waited for and that couldn't be read (Linux 6.1):
      // another try ends the same. A thread that does it itself hears why.
      if (result == -EAGAIN && !std::exchange(blocking_, true)) return Continue();
      switch (request_->operation) {
        case disk::Operation::kRead:
        case disk::Operation::kWrite:
          return Transferred(result);
        case disk::Operation::kFlush:
          return result < 0 ? Fail(result) : End(storage_.CheckFile());
        case disk::Operation::kDiscard:
          // A host that can't keeps the bytes, which is a discard too.
          if (result < 0 && !Unsupported(result)) return Fail(result);
          return End(absl::OkStatus());
        case disk::Operation::kWriteZeroes:
          return Zeroed(result);
      }
    }

   private:
    static bool Unsupported(int64_t result) {
      return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL;
    }
    void Continue() {
      const int fd = storage_.fd_.get();
      const uint64_t at = request_->offset + done_;
      const uint64_t left = request_->length - done_;
      switch (request_->operation) {
        case disk::Operation::kRead:
        case disk::Operation::kWrite:
          return TransferBatch(fd, at);
        case disk::Operation::kFlush:
          return storage_.loop_.Fsync(fd, IoLoop::Sync::kData, *this);
        case disk::Operation::kDiscard:
          if (storage_.facts_.block_device) {
            return storage_.loop_.RunBlocking(
                [fd, range = std::array<uint64_t, 2>{at, left}]() -> int64_t {
                  return ::ioctl(fd, BLKDISCARD, range.data()) == 0 ? 0 : -int64_t{errno};
                },
                *this);
          }
          return storage_.loop_.Fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, left,
                                          *this);
        case disk::Operation::kWriteZeroes: {
          // Extends a file where it has to; holes where that is welcome.
          const bool within = at + left <= storage_.facts_.size;
          if (way_ == 0 && request_->may_deallocate && within) {
            return storage_.loop_.Fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                                            left, *this);
          }
          if (way_ <= 1) {
            way_ = 1;
            return storage_.loop_.Fallocate(fd, FALLOC_FL_ZERO_RANGE, at, left, *this);
          }
          zeroes_ = {.iov_base = const_cast<uint8_t*>(kZeroes.data()),
                     .iov_len = std::min<uint64_t>(left, kZeroes.size())};
          return storage_.loop_.Write(fd, std::span<const iovec>(&zeroes_, 1), at, *this);
        }
      }
    }
    void TransferBatch(int fd, uint64_t at) {
      const bool read = request_->operation == disk::Operation::kRead;
      const std::span<const iovec> batch = Batch();
      if (blocking_) {
        return storage_.loop_.RunBlocking(
            [fd, at, read, batch]() -> int64_t {
              const auto call = read ? ::preadv : ::pwritev;
              const ssize_t result =
                  call(fd, batch.data(), static_cast<int>(batch.size()), static_cast<off_t>(at));
              return result < 0 ? -int64_t{errno} : result;
            },
            *this);
      }
      if (read) return storage_.loop_.Read(fd, batch, at, *this);
      storage_.loop_.Write(fd, batch, at, *this);
    }
    // As many of the buffers that are left as one call takes.
    std::span<const iovec> Batch() { return rest_.first(std::min<size_t>(rest_.size(), IOV_MAX)); }

    void Transferred(int64_t result) {
      if (result < 0) return Fail(result);
      if (result == 0) {
        return End(absl::OutOfRangeError(absl::StrCat(
            storage_.path_, ": offset ", request_->offset + done_,
            request_->operation == disk::Operation::kRead ? ": the file was truncated, it ends here"
                                                          : ": nothing more can be written")));
      }
      done_ += static_cast<uint64_t>(result);
      if (request_->operation == disk::Operation::kWrite) Extended();
      if (done_ == request_->length) return End(absl::OkStatus());
      Advance(static_cast<uint64_t>(result));
      Continue();
    }
    void Advance(uint64_t bytes) {
      if (own_.data() != rest_.data() || own_.empty()) {
        own_.assign(rest_.begin(), rest_.end());
        rest_ = own_;
      }
      size_t whole = 0;
      while (whole < rest_.size() && bytes >= rest_[whole].iov_len) bytes -= rest_[whole++].iov_len;
      own_.erase(own_.begin(), own_.begin() + static_cast<ptrdiff_t>(whole));
      if (!own_.empty()) {
        own_[0].iov_base = static_cast<uint8_t*>(own_[0].iov_base) + bytes;
        own_[0].iov_len -= bytes;
      }
      rest_ = own_;
    }
    void Zeroed(int64_t result) {
      if (result < 0 && way_ <= 1 && Unsupported(result)) {
        ++way_;
        return Continue();
      }
      if (result < 0) return Fail(result);
      done_ = way_ <= 1 ? request_->length : done_ + static_cast<uint64_t>(result);
      Extended();
      if (done_ == request_->length) return End(absl::OkStatus());
      Continue();
    }
    void Extended() {
      storage_.facts_.size = std::max(storage_.facts_.size, request_->offset + done_);
    }
    void Fail(int64_t result) {
      End(ErrnoStatus(static_cast<int>(-result),
                      absl::StrCat(storage_.path_, ": offset ", request_->offset + done_, ": ",
                                   NameOf(request_->operation))));
    }
    void End(absl::Status status) {
      HostStorage& storage = storage_;
      Request& request = *request_;
      own_.clear();
      rest_ = {};
      trace_.End(std::string_view(status.message().data(), status.message().size()));
      storage.spare_.push_back(std::unique_ptr<Transfer>(this));
      --storage.in_flight_;
      request.Complete(std::move(status));
    }

    HostStorage& storage_;
    Request* request_ = nullptr;
    uint64_t done_ = 0;
    int way_ = 0;
    bool blocking_ = false;  // transfers are made by a thread that waits
    std::span<const iovec> rest_;
    std::vector<iovec> own_;  // what is left after a short transfer
    iovec zeroes_{};
    TraceOperation trace_;
  };

  IoLoop& loop_;
  const std::string path_;
  const UniqueFd fd_;
  const bool read_only_;
  const bool had_name_;  // when it was opened
  Facts facts_;
  int resizing_ = 0;  // resizes under way
  size_t in_flight_ = 0;
  std::vector<std::unique_ptr<Transfer>> spare_;
};

struct Opened {
  UniqueFd fd;
  HostStorage::Facts facts;
};

absl::StatusOr<Opened> OpenAndLock(const std::string& path, bool read_only, int extra_flags) {
  // O_NONBLOCK: opening a FIFO mustn't wait for its other end.
  const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | extra_flags;
  Opened opened;
  // When an image was last read interests nobody, and asking for each read whether to write that
  // down costs a twentieth of a small one; only the owner may leave it.
  opened.fd.Reset(::open(path.c_str(), flags | O_NOATIME, 0644));
  if (!opened.fd && errno == EPERM) opened.fd.Reset(::open(path.c_str(), flags, 0644));
  if (!opened.fd) return ErrnoStatus(errno, path);
  ASSIGN_OR_RETURN(opened.facts, HostStorage::Examine(opened.fd.get(), path));
  if (opened.facts.block_device && !read_only) {
    // Exclusive opens of a block device also exclude mounts.
    UniqueFd exclusive(::open(path.c_str(), flags | O_EXCL));
    if (!exclusive && errno == EBUSY) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": in use: the block device is mounted or open elsewhere"));
    }
    if (!exclusive) return ErrnoStatus(errno, path);
    opened.fd = std::move(exclusive);
    // Linux opens one that is read-only for writing all the same, and refuses the writes.
    int device_read_only = 0;
    if (::ioctl(opened.fd.get(), BLKROGET, &device_read_only) == 0 && device_read_only != 0) {
      return absl::PermissionDeniedError(
          absl::StrCat(path, ": the block device is read-only: open it read-only"));
    }
  }
  RETURN_IF_ERROR(LockImage(opened.fd.get(), read_only, path));
  return opened;
}

Task<absl::StatusOr<std::unique_ptr<Storage>>> Open(IoLoop& loop, std::string path, bool read_only,
                                                    int extra_flags) {
  absl::StatusOr<Opened> opened;
  BlockingCall call(loop, [&]() -> int64_t {
    opened = OpenAndLock(path, read_only, extra_flags);
    return 0;
  });
  const int64_t done = co_await call;
  CHECK(done == 0);
  if (!opened.ok()) co_return opened.status();
  std::unique_ptr<Storage> storage = std::make_unique<HostStorage>(
      loop, std::move(path), std::move(opened->fd), read_only, opened->facts);
  co_return storage;
}

}  // namespace

Task<absl::StatusOr<std::unique_ptr<Storage>>> OpenHostStorage(IoLoop& loop,
                                                               HostStorageOptions options) {
  return Open(loop, std::move(options.path), options.read_only, 0);
}

Task<absl::StatusOr<std::unique_ptr<Storage>>> CreateHostStorage(IoLoop& loop, std::string path) {
  return Open(loop, std::move(path), false, O_CREAT | O_EXCL);
}

}  // namespace bothy::disk
