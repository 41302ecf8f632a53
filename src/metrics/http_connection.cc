#include "metrics/http_connection.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "metrics/exposition.h"

namespace bothy::metrics {
namespace {

constexpr char kText[] = "text/plain; charset=utf-8";

}  // namespace

void HttpConnection::Start(UniqueFd socket) {
  asio::error_code error;
  descriptor_.assign(socket.get(), error);
  if (error) return Close();
  static_cast<void>(socket.Release());
  ArmTimer(options_.exchange);
  WaitReadable();
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const auto self = shared_from_this();
  asio::error_code ignored;
  timer_.cancel();
  descriptor_.close(ignored);
  options_.closed(self);
}

void HttpConnection::ArmTimer(std::chrono::milliseconds time) {
  timer_.expires_after(time);
  timer_.async_wait(
      [weak = weak_from_this(), armed = ++timer_armed_](const asio::error_code& error) {
        const auto self = weak.lock();
        if (!error && self != nullptr && self->timer_armed_ == armed) self->Close();
      });
}

void HttpConnection::WaitReadable() {
  descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                         [self = shared_from_this()](const asio::error_code& error) {
                           if (!error && !self->closed_) self->OnReadable();
                         });
}

void HttpConnection::OnReadable() {
  std::array<char, 4096> buffer;
  const ssize_t size =
      ::recv(descriptor_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return WaitReadable();
  if (size <= 0) return Close();
  last_active_ = Clock::now();
  if (ending_) return WaitReadable();
  received_.append(buffer.data(), static_cast<size_t>(size));
  Advance();
}

void HttpConnection::Advance() {
  const HttpRequest request = HttpRequest::Parse(received_);
  if (request.form == HttpRequest::Form::kIncomplete) {
    // The time of a request begins with its first byte, and no further one prolongs it.
    if (!in_request_ && !received_.empty()) ArmTimer(options_.exchange);
    in_request_ = !received_.empty();
    return WaitReadable();
  }
  answering_ = true;
  in_request_ = false;
  ArmTimer(options_.exchange);
  Take(request);
}

void HttpConnection::Take(const HttpRequest& request) {
  head_only_ = false;
  keep_alive_ = request.keep_alive && request.form == HttpRequest::Form::kComplete;
  switch (request.form) {
    case HttpRequest::Form::kTooLong:
      return Answer("431 Request Header Fields Too Large", kText,
                    "the request's head is too long\n");
    case HttpRequest::Form::kHasBody:
      return Answer("413 Content Too Large", kText, "requests with a body aren't taken\n");
    case HttpRequest::Form::kBadVersion:
      return Answer("505 HTTP Version Not Supported", kText, "speak HTTP/1.1\n");
    case HttpRequest::Form::kIncomplete:
    case HttpRequest::Form::kMalformed:
      return Answer("400 Bad Request", kText, "this is no HTTP request\n");
    case HttpRequest::Form::kComplete:
      break;
  }
  received_.erase(0, request.size);
  head_only_ = request.method == "HEAD";
  if (!head_only_ && request.method != "GET") {
    return Answer("405 Method Not Allowed", kText, "GET is all there is\n", "Allow: GET, HEAD\r\n");
  }
  if (request.path != "/metrics") {
    return Answer("404 Not Found", kText, "the metrics are at /metrics\n");
  }
  options_.wants_metrics(shared_from_this());
}

void HttpConnection::AnswerMetrics(std::string_view page) { Answer("200 OK", kContentType, page); }

void HttpConnection::AnswerUnavailable(std::string_view why) {
  Answer("503 Service Unavailable", kText, absl::StrCat(std::string(why), "\n"));
}

void HttpConnection::Answer(std::string_view status, std::string_view content_type,
                            std::string_view body, std::string_view more_fields) {
  if (closed_ || !answering_) return;
  unsent_ = absl::StrCat(
      "HTTP/1.1 ", std::string(status), "\r\nContent-Type: ", std::string(content_type),
      "\r\nContent-Length: ", body.size(), "\r\nConnection: ", keep_alive_ ? "keep-alive" : "close",
      "\r\n", std::string(more_fields), "\r\n");
  if (!head_only_) unsent_ += body;
  sent_ = 0;
  Send();
}

void HttpConnection::Send() {
  while (sent_ < unsent_.size()) {
    const ssize_t size = ::send(descriptor_.native_handle(), unsent_.data() + sent_,
                                unsent_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) {
      return descriptor_.async_wait(asio::posix::descriptor_base::wait_write,
                                    [self = shared_from_this()](const asio::error_code& error) {
                                      if (!error && !self->closed_) self->Send();
                                    });
    }
    if (size < 0) return Close();
    last_active_ = Clock::now();
    sent_ += static_cast<size_t>(size);
  }
  unsent_ = {};
  answering_ = false;
  if (!keep_alive_) {
    // A socket that is closed with something unread takes back what it has sent: the client goes
    // first, or the time of the exchange ends.
    ending_ = true;
    ::shutdown(descriptor_.native_handle(), SHUT_WR);
    return WaitReadable();
  }
  ArmTimer(options_.idle);
  // The next request may be here already.
  Advance();
}

}  // namespace bothy::metrics
