#include "ttrpc/envelope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "ttrpc.pb.h"

namespace bothy::ttrpc {
namespace {

std::string Encode(const RequestHead& head, const std::string& payload) {
  std::string bytes(SizeOfRequest(head, payload.size()), '\0');
  auto* const begin = reinterpret_cast<uint8_t*>(bytes.data());
  uint8_t* const at = EncodeRequest(head, payload.size(), begin);
  EXPECT_EQ(at + payload.size(), begin + bytes.size());
  std::copy(payload.begin(), payload.end(), at);
  return bytes;
}

// What the hand-written decoder makes of `bytes` must be what the generated one does.
void ExpectSameRequest(const std::string& bytes) {
  Request oracle;
  RequestView view;
  const bool good = oracle.ParseFromString(bytes);
  ASSERT_EQ(DecodeRequest(bytes, &view).ok(), good) << ::testing::PrintToString(bytes);
  if (!good) return;
  EXPECT_EQ(view.service, oracle.service());
  EXPECT_EQ(view.method, oracle.method());
  EXPECT_EQ(view.payload, oracle.payload());
  EXPECT_EQ(view.timeout_nano, oracle.timeout_nano());
  ASSERT_EQ(view.metadata.size(), static_cast<size_t>(oracle.metadata_size()));
  for (int i = 0; i < oracle.metadata_size(); ++i) {
    EXPECT_EQ(view.metadata[i].first, oracle.metadata(i).key());
    EXPECT_EQ(view.metadata[i].second, oracle.metadata(i).value());
  }
}

void ExpectSameResponse(const std::string& bytes) {
  Response oracle;
  ResponseView view;
  const bool good = oracle.ParseFromString(bytes);
  ASSERT_EQ(DecodeResponse(bytes, &view).ok(), good) << ::testing::PrintToString(bytes);
  if (!good) return;
  EXPECT_EQ(view.payload, oracle.payload());
  if (oracle.status().code() == 0) {
    EXPECT_TRUE(view.status.ok());
    return;
  }
  EXPECT_EQ(view.status.raw_code(), oracle.status().code() > 0 && oracle.status().code() <= 16
                                        ? oracle.status().code()
                                        : 2);
  EXPECT_EQ(std::string(view.status.message()), oracle.status().message());
}

Request SampleRequest() {
  Request request;
  request.set_service("vmservice.VM");
  request.set_method("CreateVM");
  request.set_payload(std::string("\x0a\x03\0\xff\x80", 5));
  request.set_timeout_nano(1'500'000'000);
  for (const auto& [key, value] : {std::pair("tenant", "ö"), {"trace", ""}, {"tenant", "b"}}) {
    KeyValue* const pair = request.add_metadata();
    pair->set_key(key);
    pair->set_value(value);
  }
  return request;
}

Response SampleResponse() {
  Response response;
  response.mutable_status()->set_code(5);
  response.mutable_status()->set_message("no such disk");
  auto* const detail = response.mutable_status()->add_details();
  detail->set_type_url("type.googleapis.com/x.Y");
  detail->set_value(std::string("\0\1", 2));
  response.set_payload("ignored");
  return response;
}

TEST(RequestEnvelopeTest, GeneratedCodeReadsWhatWeWrite) {
  const Metadata metadata = {{"tenant", "ö"}, {"trace", ""}, {"tenant", "b"}};
  for (const int64_t timeout : {int64_t{0}, int64_t{1}, int64_t{1} << 62, int64_t{-1}}) {
    for (const size_t size : {0, 1, 127, 128, 20000}) {
      const std::string payload(size, 'p');
      Request request;
      ASSERT_TRUE(request.ParseFromString(
          Encode({.service = "a.B", .method = "C", .timeout_nano = timeout, .metadata = &metadata},
                 payload)));
      EXPECT_EQ(request.service(), "a.B");
      EXPECT_EQ(request.method(), "C");
      EXPECT_EQ(request.payload(), payload);
      EXPECT_EQ(request.timeout_nano(), timeout);
      ASSERT_EQ(request.metadata_size(), 3);
      EXPECT_EQ(request.metadata(0).value(), "ö");
      EXPECT_EQ(request.metadata(2).key(), "tenant");
    }
  }
}

TEST(RequestEnvelopeTest, ReadsWhatGeneratedCodeWrites) {
  ExpectSameRequest(SampleRequest().SerializeAsString());
  ExpectSameRequest("");
  Request negative;
  negative.set_timeout_nano(-5);
  ExpectSameRequest(negative.SerializeAsString());
}

TEST(RequestEnvelopeTest, AgreesWithGeneratedCodeOnEveryTruncation) {
  const std::string bytes = SampleRequest().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) ExpectSameRequest(bytes.substr(0, size));
}

TEST(RequestEnvelopeTest, AgreesWithGeneratedCodeOnOddWireForms) {
  const google::protobuf::LogSilencer silencer;
  const std::string odd[] = {
      std::string("\x08\x05", 2),                  // field 1 as varint: unknown, passed over
      std::string("\x3a\x01x\x0a\x01s", 6),        // unknown field 7
      std::string("\x0a\x01\xff", 3),              // not UTF-8
      std::string("\x1a\x01\xff", 3),              // bytes need not be
      std::string("\x00\x01", 2),                  // field 0
      std::string("\x0e", 1),                      // wire type 6
      std::string("\x0c", 1),                      // end of a group that never began
      std::string("\x3b\x08\x01\x3c", 4),          // a group
      std::string("\x3b\x08\x01\x44", 4),          // a group ended by another's end
      std::string("\x3b\x08\x01", 3),              // a group without end
      std::string("\x0a\xff\xff\xff\xff\x0f", 6),  // length near 2^32
      std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),
      std::string("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),      // timeout -1
      std::string("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12),  // varint too long
      std::string("\x0a\x01x\x0a\x01y", 6),                                 // the last one counts
      std::string("\x2a\x00", 2),                                           // an empty pair
      std::string("\x2a\x02\x0a\x05", 4),                                   // a pair cut short
      std::string("\x39\x01\x02\x03\x04\x05\x06\x07", 8),                   // fixed64, cut short
      std::string("\x3d\x01\x02\x03\x04", 5),                               // fixed32
      std::string("\x8a\x00\x01z", 4),                 // a tag longer than it need be
      std::string("\xff\xff\xff\xff\x7f\x01", 6),      // a tag over 32 bits
      std::string("\xea\xea\xea\xea\x40\x00", 6),      // the same, of which 32 bits count
      std::string("\x0a\x80\x80\x80\x80\x00", 6),      // a length of five bytes
      std::string("\x0a\x80\x80\x80\x80\x80\x00", 7),  // of six
  };
  for (const std::string& bytes : odd) {
    ExpectSameRequest(bytes);
    ExpectSameResponse(bytes);
  }
}

TEST(RequestEnvelopeTest, AgreesWithGeneratedCodeOnDamagedMessages) {
  const google::protobuf::LogSilencer silencer;
  std::mt19937 random(1);
  const std::string request = SampleRequest().SerializeAsString();
  const std::string response = SampleResponse().SerializeAsString();
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = i % 2 == 0 ? request : response;
    for (uint32_t damage = random() % 3; damage-- > 0;) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    ExpectSameRequest(bytes);
    ExpectSameResponse(bytes);
  }
}

TEST(ResponseEnvelopeTest, GeneratedCodeReadsWhatWeWrite) {
  for (const size_t size : {0, 1, 127, 128, 20000}) {
    const std::string payload(size, 'p');
    std::string bytes(SizeOfResponse(size), '\0');
    auto* const begin = reinterpret_cast<uint8_t*>(bytes.data());
    uint8_t* const at = EncodeResponse(size, begin);
    ASSERT_EQ(at + size, begin + bytes.size());
    std::copy(payload.begin(), payload.end(), at);
    Response response;
    ASSERT_TRUE(response.ParseFromString(bytes));
    EXPECT_FALSE(response.has_status());
    EXPECT_EQ(response.payload(), payload);
  }
}

TEST(ResponseEnvelopeTest, CarriesAStatusWithItsDetails) {
  absl::Status status = absl::NotFoundError("disk: /x doesn't exist");
  status.SetPayload("type.googleapis.com/x.Y", absl::Cord("detail"));
  const std::string bytes = EncodeErrorResponse(status);

  Response response;
  ASSERT_TRUE(response.ParseFromString(bytes));
  EXPECT_EQ(response.status().code(), 5);
  EXPECT_EQ(response.status().message(), "disk: /x doesn't exist");
  ASSERT_EQ(response.status().details_size(), 1);
  EXPECT_EQ(response.status().details(0).type_url(), "type.googleapis.com/x.Y");
  EXPECT_EQ(response.status().details(0).value(), "detail");

  ResponseView view;
  ASSERT_TRUE(DecodeResponse(bytes, &view).ok());
  EXPECT_EQ(view.status, status);
}

TEST(ResponseEnvelopeTest, ReadsWhatGeneratedCodeWrites) {
  ExpectSameResponse(SampleResponse().SerializeAsString());
  ExpectSameResponse("");
  Response odd_code;
  odd_code.mutable_status()->set_code(99);
  ExpectSameResponse(odd_code.SerializeAsString());
  odd_code.mutable_status()->set_code(-3);
  ExpectSameResponse(odd_code.SerializeAsString());
  Response explicit_ok;
  explicit_ok.mutable_status()->set_message("fine");
  ExpectSameResponse(explicit_ok.SerializeAsString());
}

TEST(ResponseEnvelopeTest, MergesAStatusThatComesInParts) {
  Response code;
  code.mutable_status()->set_code(7);
  Response message;
  message.mutable_status()->set_message("no");
  ExpectSameResponse(code.SerializeAsString() + message.SerializeAsString());
}

TEST(ResponseEnvelopeTest, AnErrorAlwaysFitsAFrameAndIsUtf8) {
  absl::Status status = absl::InternalError("bad \xff byte, " + std::string(1 << 20, 'x'));
  status.SetPayload("huge", absl::Cord(std::string(8 << 20, 'x')));
  Response response;
  const std::string bytes = EncodeErrorResponse(status);
  ASSERT_TRUE(response.ParseFromString(bytes));
  EXPECT_LT(bytes.size(), 128u << 10);
  EXPECT_EQ(response.status().message().substr(0, 10), "bad ? byte");
  EXPECT_EQ(response.status().details_size(), 0);
}

TEST(Utf8Test, AcceptsWhatIsWellFormedOnly) {
  for (const std::string good :
       {"", "abc", "ö", "€", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << ::testing::PrintToString(good);
  }
  for (const std::string bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xff", "a\xc3("}) {
    EXPECT_FALSE(IsUtf8(bad)) << ::testing::PrintToString(bad);
  }
}

}  // namespace
}  // namespace bothy::ttrpc
