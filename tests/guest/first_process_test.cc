#include "tests/guest/first_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "support/testing/test_folder.h"

namespace first_process {
namespace {

TEST(Base64Test, EncodesEveryRemainder) {
  EXPECT_EQ(Base64Encode(""), "");
  EXPECT_EQ(Base64Encode("f"), "Zg==");
  EXPECT_EQ(Base64Encode("fo"), "Zm8=");
  EXPECT_EQ(Base64Encode("foo"), "Zm9v");
  EXPECT_EQ(Base64Encode("\xff\xfe\xfd\xfc"), "//79/A==");
}

TEST(PercentDecodeTest, DecodesAndLeavesTheRest) {
  EXPECT_EQ(PercentDecode("a%20b%2Fc"), "a b/c");
  EXPECT_EQ(PercentDecode("%41"), "A");
  EXPECT_EQ(PercentDecode("100%"), "100%");
  EXPECT_EQ(PercentDecode("%4"), "%4");
  EXPECT_EQ(PercentDecode("%zz%"), "%zz%");
}

TEST(OptionTest, TakesTheLastAndKnowsQuotes) {
  constexpr char kLine[] = "quiet bothy.run=a bothy.demo bothy.run=\"b c\" bothy.runner=d\n";
  EXPECT_EQ(Option(kLine, "bothy.run"), "b c");
  EXPECT_EQ(Option(kLine, "bothy.demo"), "");
  EXPECT_EQ(Option(kLine, "bothy.runner"), "d");
  EXPECT_EQ(Option(kLine, "bothy"), std::nullopt);
  EXPECT_EQ(Option("", "quiet"), std::nullopt);
}

TEST(AwaitFileTest, ReturnsOnceThereIsOne) {
  const bothy::TestFolder folder;
  const std::string path = folder / "appears";
  std::thread maker([&] {
    folder.WriteText("other", "");
    folder.WriteText("appears", "");
  });
  AwaitFile(path);
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  maker.join();
  AwaitFile(path);
}

TEST(ReadAvailableTest, StopsAtTheLimitAndClosesAtTheEnd) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  ASSERT_TRUE(WriteAll(ends[1], "abcdef"));
  std::string data;
  ReadAvailable(&ends[0], 4, &data);
  EXPECT_EQ(data, "abcd");
  ReadAvailable(&ends[0], 4, &data);
  EXPECT_EQ(data, "abcdef");
  EXPECT_GE(ends[0], 0);
  close(ends[1]);
  ReadAvailable(&ends[0], 4, &data);
  EXPECT_EQ(ends[0], -1);
}

TEST(ShellStatusTest, TellsSignalsApart) {
  EXPECT_EQ(ShellStatus(7 << 8), 7);
  EXPECT_EQ(ShellStatus(9), 137);
}

}  // namespace
}  // namespace first_process
