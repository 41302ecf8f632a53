#include "sockets/host_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "support/check.h"

namespace bothy::sockets {
namespace {

// What a socket should take at once: its default is about half of that. It is a wish.
constexpr int kSendBuffer = 512 * 1024;
// Beyond that, memory of what was kept isn't held on to.
constexpr size_t kKeepCapacity = size_t{16} * 1024;

}  // namespace

HostStream::HostStream(UniqueFd socket, IoLoop& loop, Callbacks callbacks)
    : socket_(std::move(socket)), callbacks_(std::move(callbacks)) {
  (void)::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
  readiness_ = loop.WatchReadiness(
      socket_.get(),
      [this] {
        // A copy: it may destroy the stream, or replace itself.
        const auto on_readable = callbacks_.on_readable;
        if (on_readable) on_readable();
      },
      [this] { OnWritable(); });
}

size_t HostStream::Send(std::span<const iovec> bytes) {
  size_t sent = 0;
  while (!bytes.empty() && !broken_) {
    const std::span<const iovec> part = bytes.first(std::min<size_t>(bytes.size(), IOV_MAX));
    size_t size = 0;
    for (const iovec& buffer : part) size += buffer.iov_len;
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(part.data());
    message.msg_iovlen = part.size();
    const ssize_t result = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) Broken();
      return sent;
    }
    sent += static_cast<size_t>(result);
    if (static_cast<size_t>(result) < size) return sent;
    bytes = bytes.subspan(part.size());
  }
  return sent;
}

void HostStream::Broken() {
  broken_ = true;
  kept_ = {};
  kept_from_ = 0;
}

void HostStream::Write(std::span<const iovec> bytes) {
  CHECK(!ends_);
  if (broken_) return;
  const size_t sent = kept() == 0 ? Send(bytes) : 0;
  written_ += sent;
  if (!broken_) Keep(bytes, sent);
}

void HostStream::Keep(std::span<const iovec> bytes, size_t skip) {
  if (kept_from_ > kept_.size() / 2) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<ptrdiff_t>(kept_from_));
    kept_from_ = 0;
  }
  for (const iovec& buffer : bytes) {
    const size_t without = std::min(skip, buffer.iov_len);
    skip -= without;
    const auto* const at = static_cast<const uint8_t*>(buffer.iov_base);
    kept_.insert(kept_.end(), at + without, at + buffer.iov_len);
  }
  if (kept() != 0) readiness_->AwaitWritable();
}

void HostStream::OnWritable() {
  if (broken_ || kept() == 0) return;
  const std::array<iovec, 1> rest = {{{.iov_base = &kept_[kept_from_], .iov_len = kept()}}};
  const size_t sent = Send(rest);
  written_ += sent;
  if (!broken_) kept_from_ += sent;
  if (kept() != 0) {
    readiness_->AwaitWritable();
  } else {
    kept_.clear();
    kept_from_ = 0;
    if (kept_.capacity() > kKeepCapacity) kept_ = {};
    if (ends_) (void)::shutdown(socket_.get(), SHUT_WR);
  }
  const auto on_written = callbacks_.on_written;
  if ((sent != 0 || broken_) && on_written) on_written();
}

void HostStream::EndWriting() {
  if (std::exchange(ends_, true)) return;
  if (kept() == 0) (void)::shutdown(socket_.get(), SHUT_WR);
}

HostStream::ReadResult HostStream::Read(std::span<const iovec> into) {
  ssize_t result = -1;
  do {
    result = ::readv(socket_.get(), into.data(), static_cast<int>(into.size()));
  } while (result < 0 && errno == EINTR);
  if (result > 0) return {ReadResult::What::kBytes, static_cast<size_t>(result)};
  if (result == 0) return {ReadResult::What::kEnd, 0};
  return {errno == EAGAIN ? ReadResult::What::kNothing : ReadResult::What::kBroken, 0};
}

void HostStream::AwaitReadable() { readiness_->AwaitReadable(); }

void HostStream::EndReading() { (void)::shutdown(socket_.get(), SHUT_RD); }

bool HostStream::PeerHasClosed() const {
  pollfd state{.fd = socket_.get(), .events = 0, .revents = 0};
  return ::poll(&state, 1, 0) == 1 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace bothy::sockets
