#include "ttrpc/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <list>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/event_loop.h"
#include "support/status.h"
#include "support/unix_socket.h"
#include "ttrpc/byte_queue.h"
#include "ttrpc/frame.h"

namespace bothy::ttrpc {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

constexpr size_t kReadSize = 64 << 10;
// Requests that the server doesn't read; further calls are refused.
constexpr size_t kMaxUnsent = 64 << 20;
// How long a blocking call polls for its answer before it sleeps: most answers take less time than
// waking a thread does.
constexpr std::chrono::microseconds kStayAwake(50);

absl::Status DeadlinePassed() {
  return absl::DeadlineExceededError("no answer before the deadline");
}

// poll(2)'s timeout until `deadline`, rounded up; none: for ever.
int PollTimeout(std::optional<TimePoint> deadline) {
  if (!deadline) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, std::numeric_limits<int>::max()));
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(UniqueFd socket) : socket_(std::move(socket)), read_buffer_(new char[kReadSize]) {}
  ~Impl();

  absl::Status Call(std::string_view service, std::string_view method,
                    const google::protobuf::MessageLite& request,
                    google::protobuf::MessageLite* response, const CallOptions& options);
  void CallAsync(std::string_view service, std::string_view method,
                 const google::protobuf::MessageLite& request, const CallOptions& options,
                 Done done);
  void Close();

 private:
  // A blocking call whose answer is awaited; on the caller's stack.
  struct BlockingCall {
    google::protobuf::MessageLite* response = nullptr;
    std::condition_variable wake;  // over, or free to read
    bool over = false;             // status and *response are final
    absl::Status status;
  };
  struct AsyncCall {
    Done done;
    std::optional<TimePoint> deadline;
  };
  struct Finished {
    Done done;
    absl::Status status;
    std::string payload;
  };

  // Registers a call through `add`, under mutex_, and writes its request.
  template <typename Add>
  absl::StatusOr<uint32_t> Send(std::string_view service, std::string_view method,
                                const google::protobuf::MessageLite& request,
                                const CallOptions& options, Add add);
  // Sends what the socket takes; the caller holds output_mutex_.
  void FlushLocked();

  // Reads once, waiting until `deadline`, and hands out what came. The caller has set reading_.
  void WaitAndRead(std::optional<TimePoint> deadline);
  // False: nothing has come.
  bool Read(int flags);
  void HandOut(const FrameDecoder::Frame& frame, const absl::Status& status,
               std::string_view payload);
  // The connection is gone: every call answers `why`.
  void Lose(const absl::Status& why);

  // These are called with mutex_ held.
  void WakeNextReaderLocked();
  void StartThreadLocked();
  void WakeThreadLocked();
  void FinishAsyncLocked(std::unordered_map<uint32_t, AsyncCall>::iterator call,
                         absl::Status status, std::string_view payload);
  void ExpireLocked();

  void ThreadMain();
  // Waits for the socket and the wake-up; true when there is something to read.
  bool PollSocket(bool for_input, bool for_output, std::optional<TimePoint> deadline);
  void RunCallbacks(std::vector<Finished> finished);

  const UniqueFd socket_;

  // Sending. Locked before mutex_ where both are needed.
  std::mutex output_mutex_;
  ByteQueue output_;      // guarded by output_mutex_
  uint32_t next_id_ = 1;  // guarded by output_mutex_: ids go out in order
  bool broken_ = false;   // guarded by output_mutex_: sending failed for good

  std::mutex mutex_;
  // All guarded by mutex_.
  bool reading_ = false;      // a thread has the reading side to itself
  bool output_full_ = false;  // the socket takes no more; the thread waits for room
  std::unordered_map<uint32_t, BlockingCall*> blocking_;
  std::list<BlockingCall*> waiting_;  // those of blocking_ whose threads sleep
  std::unordered_map<uint32_t, AsyncCall> async_;
  std::set<std::pair<TimePoint, uint32_t>> deadlines_;  // of async_
  std::vector<Finished> finished_;                      // callbacks to be run
  absl::Status lost_;                                   // not OK once the connection is gone

  // The reading side, of whoever set reading_.
  FrameDecoder decoder_;
  const std::unique_ptr<char[]> read_buffer_;

  // The client's own thread: asynchronous calls, and requests that the socket had no room for.
  // All guarded by mutex_; wake_fd_ doesn't change once the thread runs.
  std::thread thread_;
  UniqueFd wake_fd_;
  std::condition_variable thread_wake_;
  bool polling_ = false;  // the thread sleeps in poll(2), not on thread_wake_
  bool stopping_ = false;

  // The client whose callbacks run on this thread: what they send goes out together.
  static thread_local const Impl* t_in_callbacks;
};

thread_local const Client::Impl* Client::Impl::t_in_callbacks = nullptr;

Client::Impl::~Impl() {
  Close();
  {
    const std::lock_guard lock(mutex_);
    CHECK(blocking_.empty());
    stopping_ = true;
    WakeThreadLocked();
  }
  if (thread_.joinable()) thread_.join();
}

void Client::Impl::Close() {
  Lose(absl::UnavailableError("the connection was closed"));
  // Wakes whoever waits for the socket.
  ::shutdown(socket_.get(), SHUT_RDWR);
}

template <typename Add>
absl::StatusOr<uint32_t> Client::Impl::Send(std::string_view service, std::string_view method,
                                            const google::protobuf::MessageLite& request,
                                            const CallOptions& options, Add add) {
  for (const auto& [key, value] : options.metadata) {
    if (!IsUtf8(key) || !IsUtf8(value)) {
      return absl::InvalidArgumentError("the call's metadata isn't UTF-8");
    }
  }
  RequestHead head{.service = service, .method = method, .metadata = &options.metadata};
  if (options.timeout) {
    if (options.timeout->count() <= 0) return DeadlinePassed();
    head.timeout_nano = options.timeout->count();
  }
  const size_t payload_size = request.ByteSizeLong();
  const size_t size = SizeOfRequest(head, payload_size);
  if (size > kMaxMessage) {
    return absl::ResourceExhaustedError(
        absl::StrCat("message length ", size, " exceeds the maximum of ", kMaxMessage));
  }

  const std::lock_guard lock(output_mutex_);
  if (output_.size() > kMaxUnsent) {
    return absl::ResourceExhaustedError("the server doesn't read its requests");
  }
  uint32_t id;
  {
    const std::lock_guard state_lock(mutex_);
    if (!lost_.ok()) return lost_;
    // After four thousand million calls the ids start again, around those still in use.
    while (blocking_.contains(next_id_) || async_.contains(next_id_)) next_id_ += 2;
    id = std::exchange(next_id_, next_id_ + 2);
    add(id);
  }
  if (broken_) return id;  // the reading side is about to notice
  uint8_t* to = output_.Grow(kFrameHeaderSize + size);
  EncodeFrameHeader({.length = static_cast<uint32_t>(size), .stream_id = id, .type = kFrameRequest},
                    to);
  to = EncodeRequest(head, payload_size, to + kFrameHeaderSize);
  request.SerializeWithCachedSizesToArray(to);
  if (t_in_callbacks != this) FlushLocked();
  return id;
}

void Client::Impl::FlushLocked() {
  while (!output_.empty()) {
    const ssize_t sent =
        ::send(socket_.get(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      output_.Consume(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      const std::lock_guard lock(mutex_);
      if (output_full_) return;
      output_full_ = true;
      StartThreadLocked();
      WakeThreadLocked();
      return;
    } else if (errno != EINTR) {
      // Answers may still be there to be read; the end of the connection comes behind them.
      broken_ = true;
      output_.Clear();
      ::shutdown(socket_.get(), SHUT_WR);
    }
  }
}

absl::Status Client::Impl::Call(std::string_view service, std::string_view method,
                                const google::protobuf::MessageLite& request,
                                google::protobuf::MessageLite* response,
                                const CallOptions& options) {
  std::optional<TimePoint> deadline;
  if (options.timeout) {
    const TimePoint now = std::chrono::steady_clock::now();
    if (*options.timeout < TimePoint::max() - now) deadline = now + *options.timeout;
  }
  BlockingCall call;
  call.response = response;
  const auto sent =
      Send(service, method, request, options, [&](uint32_t id) { blocking_.emplace(id, &call); });
  if (!sent.ok()) return sent.status();
  if (t_in_callbacks == this) {
    const std::lock_guard lock(output_mutex_);
    FlushLocked();
  }

  std::unique_lock lock(mutex_);
  while (!call.over) {
    if (deadline && std::chrono::steady_clock::now() >= *deadline) {
      if (blocking_.erase(*sent) > 0) {
        call.status = DeadlinePassed();
        break;
      }
      deadline.reset();  // the answer is being handed out this moment
    }
    if (!reading_) {
      reading_ = true;
      lock.unlock();
      WaitAndRead(deadline);
      lock.lock();
      reading_ = false;
    } else {
      const auto place = waiting_.insert(waiting_.end(), &call);
      if (deadline) {
        call.wake.wait_until(lock, *deadline);
      } else {
        call.wake.wait(lock);
      }
      waiting_.erase(place);
    }
  }
  if (!reading_) WakeNextReaderLocked();
  return std::move(call.status);
}

void Client::Impl::CallAsync(std::string_view service, std::string_view method,
                             const google::protobuf::MessageLite& request,
                             const CallOptions& options, Done done) {
  std::optional<TimePoint> deadline;
  if (options.timeout) {
    const TimePoint now = std::chrono::steady_clock::now();
    if (*options.timeout < TimePoint::max() - now) deadline = now + *options.timeout;
  }
  auto sent = Send(service, method, request, options, [&](uint32_t id) {
    async_.emplace(id, AsyncCall{.done = std::move(done), .deadline = deadline});
    if (deadline) deadlines_.emplace(*deadline, id);
    StartThreadLocked();
    // The thread must learn of the first call to wait for, and of an earlier end of its sleep.
    if (async_.size() == 1 || (deadline && deadlines_.begin()->second == id)) WakeThreadLocked();
  });
  if (sent.ok()) return;
  const std::lock_guard lock(mutex_);
  finished_.push_back({.done = std::move(done), .status = std::move(sent).status(), .payload = {}});
  StartThreadLocked();
  WakeThreadLocked();
}

void Client::Impl::WaitAndRead(std::optional<TimePoint> deadline) {
  const TimePoint sleep_at = std::chrono::steady_clock::now() + kStayAwake;
  while (!Read(MSG_DONTWAIT)) {
    if (std::chrono::steady_clock::now() < sleep_at) {
      ::sched_yield();
    } else if (!deadline) {
      Read(0);
      return;
    } else {
      pollfd poll_fd{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&poll_fd, 1, PollTimeout(deadline)) <= 0) return;
    }
  }
}

bool Client::Impl::Read(int flags) {
  const ssize_t size = ::recv(socket_.get(), read_buffer_.get(), kReadSize, flags);
  if (size < 0) {
    if (errno == EINTR || errno == EAGAIN) return false;
    Lose(absl::UnavailableError(absl::StrCat("the connection broke: ", strerror(errno))));
    return true;
  }
  if (size == 0) {
    Lose(absl::UnavailableError("the server closed the connection"));
    return true;
  }
  std::string_view input(read_buffer_.get(), static_cast<size_t>(size));
  while (true) {
    FrameDecoder::Frame frame;
    switch (decoder_.Next(&input, &frame)) {
      case FrameDecoder::Event::kNeedMore:
        return true;
      case FrameDecoder::Event::kOverlong:
        HandOut(
            frame,
            absl::ResourceExhaustedError(absl::StrCat("the answer's length ", frame.header.length,
                                                      " exceeds the maximum of ", kMaxMessage)),
            {});
        break;
      case FrameDecoder::Event::kFrame:
        if (frame.header.type == kFrameResponse) {
          ResponseView response;
          const absl::Status decoded = DecodeResponse(frame.data, &response);
          HandOut(frame, decoded.ok() ? response.status : decoded, response.payload);
        } else if (frame.header.type == kFrameData) {
          HandOut(frame, absl::InternalError("the server answers with a stream"), {});
        }
        break;
    }
  }
}

void Client::Impl::HandOut(const FrameDecoder::Frame& frame, const absl::Status& status,
                           std::string_view payload) {
  const uint32_t id = frame.header.stream_id;
  BlockingCall* call = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (const auto blocking = blocking_.find(id); blocking != blocking_.end()) {
      call = blocking->second;
      blocking_.erase(blocking);
    } else if (const auto async = async_.find(id); async != async_.end()) {
      FinishAsyncLocked(async, status, payload);
    }
  }
  // Nobody: the answer comes after the deadline.
  if (call == nullptr) return;
  // Out of the table, the call waits for `over` whatever its deadline: it can be written to.
  call->status = status;
  if (status.ok() &&
      !call->response->ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    call->status =
        absl::InternalError("the answer can't be decoded as " + call->response->GetTypeName());
  }
  const std::lock_guard lock(mutex_);
  call->over = true;
  call->wake.notify_one();
}

void Client::Impl::Lose(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  if (lost_.ok()) lost_ = why;
  for (const auto& [id, call] : std::exchange(blocking_, {})) {
    call->status = lost_;
    call->over = true;
    call->wake.notify_one();
  }
  while (!async_.empty()) FinishAsyncLocked(async_.begin(), lost_, {});
}

void Client::Impl::FinishAsyncLocked(std::unordered_map<uint32_t, AsyncCall>::iterator call,
                                     absl::Status status, std::string_view payload) {
  if (call->second.deadline) deadlines_.erase({*call->second.deadline, call->first});
  finished_.push_back({.done = std::move(call->second.done),
                       .status = std::move(status),
                       .payload = std::string(payload)});
  async_.erase(call);
  if (finished_.size() == 1) WakeThreadLocked();
}

void Client::Impl::ExpireLocked() {
  if (deadlines_.empty()) return;
  const TimePoint now = std::chrono::steady_clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    FinishAsyncLocked(async_.find(deadlines_.begin()->second), DeadlinePassed(), {});
  }
}

void Client::Impl::WakeNextReaderLocked() {
  if (!waiting_.empty()) {
    waiting_.front()->wake.notify_one();
  } else if (!async_.empty()) {
    WakeThreadLocked();
  }
}

void Client::Impl::StartThreadLocked() {
  if (thread_.joinable()) return;
  wake_fd_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  CHECK(wake_fd_.valid());
  thread_ = std::thread([this] {
    SetThreadName("ttrpc-client");
    ThreadMain();
  });
}

void Client::Impl::WakeThreadLocked() {
  if (polling_) {
    polling_ = false;
    const uint64_t one = 1;
    CHECK(::write(wake_fd_.get(), &one, sizeof one) == sizeof one);
  } else {
    thread_wake_.notify_one();
  }
}

void Client::Impl::ThreadMain() {
  std::unique_lock lock(mutex_);
  while (true) {
    ExpireLocked();
    if (!finished_.empty()) {
      std::vector<Finished> finished = std::exchange(finished_, {});
      lock.unlock();
      RunCallbacks(std::move(finished));
      lock.lock();
      continue;
    }
    if (stopping_) return;

    std::optional<TimePoint> deadline;
    if (!deadlines_.empty()) deadline = deadlines_.begin()->first;
    const bool for_input = !async_.empty() && !reading_;
    const bool for_output = output_full_;
    if (!for_input && !for_output) {
      if (deadline) {
        thread_wake_.wait_until(lock, *deadline);
      } else {
        thread_wake_.wait(lock);
      }
      continue;
    }

    polling_ = true;
    lock.unlock();
    const bool readable = PollSocket(for_input, for_output, deadline);
    lock.lock();
    polling_ = false;
    // A blocking call may have begun to read meanwhile; it hands on what isn't its own.
    if (readable && !reading_) {
      reading_ = true;
      lock.unlock();
      Read(MSG_DONTWAIT);
      lock.lock();
      reading_ = false;
      if (!waiting_.empty()) WakeNextReaderLocked();
    }
  }
}

bool Client::Impl::PollSocket(bool for_input, bool for_output, std::optional<TimePoint> deadline) {
  pollfd fds[2] = {{.fd = socket_.get(), .events = 0, .revents = 0},
                   {.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}};
  if (for_input) fds[0].events |= POLLIN;
  if (for_output) fds[0].events |= POLLOUT;
  if (::poll(fds, 2, PollTimeout(deadline)) <= 0) return false;
  if (fds[1].revents != 0) {
    uint64_t count;
    CHECK(::read(wake_fd_.get(), &count, sizeof count) == sizeof count);
  }
  const short failed = POLLERR | POLLHUP;
  if (for_output && (fds[0].revents & (POLLOUT | failed)) != 0) {
    const std::lock_guard output_lock(output_mutex_);
    {
      const std::lock_guard lock(mutex_);
      output_full_ = false;
    }
    FlushLocked();
  }
  return for_input && (fds[0].revents & (POLLIN | failed)) != 0;
}

void Client::Impl::RunCallbacks(std::vector<Finished> finished) {
  t_in_callbacks = this;
  for (Finished& call : finished) {
    call.done(call.status, call.payload);
    call.done = nullptr;  // what it holds goes before the next one runs
  }
  t_in_callbacks = nullptr;
  const std::lock_guard lock(output_mutex_);
  FlushLocked();
}

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& path) {
  absl::StatusOr<UniqueFd> socket = ConnectUnix(path, ConnectMode::kBlocking);
  if (absl::IsFailedPrecondition(socket.status())) {
    return absl::UnavailableError(std::string(socket.status().message()));
  }
  if (!socket.ok()) return socket.status();
  return Adopt(*std::move(socket));
}

std::unique_ptr<Client> Client::Adopt(UniqueFd socket) {
  // Blocking calls sleep in recv(2).
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) != 0) {
    ::fcntl(socket.get(), F_SETFL, flags & ~O_NONBLOCK);
  }
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(std::move(socket))));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::Status Client::Call(std::string_view service, std::string_view method,
                          const google::protobuf::MessageLite& request,
                          google::protobuf::MessageLite* response, const CallOptions& options) {
  return impl_->Call(service, method, request, response, options);
}

void Client::CallAsync(std::string_view service, std::string_view method,
                       const google::protobuf::MessageLite& request, const CallOptions& options,
                       Done done) {
  impl_->CallAsync(service, method, request, options, std::move(done));
}

void Client::Close() { impl_->Close(); }

}  // namespace bothy::ttrpc
