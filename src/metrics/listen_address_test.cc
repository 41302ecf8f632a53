#include "metrics/listen_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/testing/test_folder.h"

namespace bothy::metrics {
namespace {

using absl::StatusCode;
using ::testing::StartsWith;

TEST(ListenAddressTest, NamesAPathOrAHostAndPort) {
  EXPECT_EQ(ListenAddress::Parse("unix:/run/a:1")->unix_path, "/run/a:1");
  const auto v4 = ListenAddress::Parse("127.0.0.1:9100");
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, 9100);
  EXPECT_EQ(ListenAddress::Parse("[::1]:0")->host, "::1");
  EXPECT_EQ(ListenAddress::Parse(":80")->host, "");
}

TEST(ListenAddressTest, AnythingElseIsRefused) {
  for (const char* const text : {"", "unix:", "/run/a", "localhost", "localhost:", "a:65536",
                                 "a:-1", "a:9100x", "::1:9100", "fe80::1"}) {
    EXPECT_EQ(ListenAddress::Parse(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ListenTest, APortThatIsTakenIsSaidToBe) {
  const auto first = Listen(*ListenAddress::Parse("127.0.0.1:0"));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(first->name, StartsWith("127.0.0.1:"));
  EXPECT_EQ(Listen(*ListenAddress::Parse(first->name)).status().code(), StatusCode::kAlreadyExists);
}

TEST(ListenTest, ASocketIsTheOwnersAloneAndGoesWithItsFile) {
  const TestFolder folder;
  const ListenAddress address = *ListenAddress::Parse("unix:" + (folder / "m.sock"));
  {
    const auto listening = Listen(address);
    ASSERT_TRUE(listening.ok()) << listening.status();
    struct stat status {};
    ASSERT_EQ(::stat((folder / "m.sock").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U);
    EXPECT_EQ(Listen(address).status().code(), StatusCode::kAlreadyExists);
  }
  EXPECT_TRUE(folder.Names().empty());
}

}  // namespace
}  // namespace bothy::metrics
