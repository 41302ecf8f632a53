// HttpConnection: one client of the endpoint: its requests one after another, each with an answer.
//
// Loop thread only. Kept alive by its handlers; Close ends it.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "metrics/http_request.h"
#include "support/unique_fd.h"

namespace bothy::metrics {

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::chrono::milliseconds exchange;  // as Limits has them
    std::chrono::milliseconds idle;
    // Somebody wants the metrics: AnswerMetrics, soon.
    std::function<void(const std::shared_ptr<HttpConnection>&)> wants_metrics;
    std::function<void(const std::shared_ptr<HttpConnection>&)> closed;
  };

  HttpConnection(asio::io_context& context, Options options)
      : options_(std::move(options)), descriptor_(context), timer_(context) {}
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // Begins to serve a connected, non-blocking stream socket.
  void Start(UniqueFd socket);
  // The answer to wants_metrics: the page, or why there is none ("503 Service Unavailable").
  void AnswerMetrics(std::string_view page);
  void AnswerUnavailable(std::string_view why);
  void Close();

  // When the client was last heard of, or took something.
  [[nodiscard]] Clock::time_point last_active() const { return last_active_; }

 private:
  void WaitReadable();
  void OnReadable();
  // Looks at what has been received; takes a request, once it is complete.
  void Advance();
  void Take(const HttpRequest& request);
  // Sends an answer; `body` is left out for HEAD.
  void Answer(std::string_view status, std::string_view content_type, std::string_view body,
              std::string_view more_fields = "");
  void Send();
  void ArmTimer(std::chrono::milliseconds time);

  const Options options_;
  asio::posix::stream_descriptor descriptor_;
  asio::steady_timer timer_;
  uint64_t timer_armed_ = 0;  // times; a handler of an earlier one is late
  Clock::time_point last_active_ = Clock::now();
  std::string received_;  // that no request has been made of yet
  std::string unsent_;
  size_t sent_ = 0;
  bool in_request_ = false;  // some of a request has come
  bool answering_ = false;
  bool head_only_ = false;
  bool keep_alive_ = true;
  bool ending_ = false;  // the last answer is out; what still comes is thrown away
  bool closed_ = false;
};

}  // namespace bothy::metrics
