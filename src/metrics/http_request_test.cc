#include "metrics/http_request.h"

#include <gtest/gtest.h>

#include <string>

namespace bothy::metrics {
namespace {

using Form = HttpRequest::Form;

Form FormOf(std::string_view received) { return HttpRequest::Parse(received).form; }

TEST(HttpRequestTest, AScrapeIsARequest) {
  const std::string text =
      "GET /metrics?collect=all HTTP/1.1\r\nHost: localhost:9100\r\nAccept: text/plain\r\n\r\n";
  const HttpRequest request = HttpRequest::Parse(text + "GET /next");
  EXPECT_EQ(request.form, Form::kComplete);
  EXPECT_EQ(request.size, text.size());
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.path, "/metrics");
  EXPECT_TRUE(request.keep_alive);
}

TEST(HttpRequestTest, WhatHasntComeInWholeIsIncomplete) {
  const std::string text = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_EQ(FormOf(text.substr(0, size)), Form::kIncomplete) << size;
  }
}

TEST(HttpRequestTest, LinesMayEndWithLineFeedsAlone) {
  const HttpRequest request = HttpRequest::Parse("HEAD / HTTP/1.1\nHost: a\n\n");
  EXPECT_EQ(request.form, Form::kComplete);
  EXPECT_EQ(request.method, "HEAD");
}

TEST(HttpRequestTest, TheConnectionLastsUnlessTheClientEndsIt) {
  const auto lasts = [](std::string_view text) { return HttpRequest::Parse(text).keep_alive; };
  EXPECT_TRUE(lasts("GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"));
  EXPECT_FALSE(lasts("GET / HTTP/1.1\r\nconnection:foo , CLOSE\r\n\r\n"));
  EXPECT_FALSE(lasts("GET / HTTP/1.0\r\n\r\n"));
}

TEST(HttpRequestTest, EndlessHeadsAreRefused) {
  EXPECT_EQ(FormOf("GET /" + std::string(HttpRequest::kMaxBytes, 'a')), Form::kTooLong);
  EXPECT_EQ(FormOf("GET /" + std::string(HttpRequest::kMaxBytes, 'a') + " HTTP/1.1\r\n\r\n"),
            Form::kTooLong);
}

TEST(HttpRequestTest, BodiesAreRefused) {
  EXPECT_EQ(FormOf("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), Form::kHasBody);
  EXPECT_EQ(FormOf("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Form::kHasBody);
  EXPECT_EQ(FormOf("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), Form::kComplete);
}

TEST(HttpRequestTest, OtherVersionsAreToldApart) {
  EXPECT_EQ(FormOf("GET / HTTP/2.0\r\n\r\n"), Form::kBadVersion);
}

TEST(HttpRequestTest, WhatIsNoHttpIsMalformed) {
  for (const std::string_view text :
       {"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET  HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n", "G(T / HTTP/1.1\r\n\r\n", "GET /a\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nNo colon\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"}) {
    EXPECT_EQ(FormOf(text), Form::kMalformed) << text;
  }
}

}  // namespace
}  // namespace bothy::metrics
