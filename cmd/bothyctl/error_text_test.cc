#include "cmd/bothyctl/error_text.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

TEST(ErrorTextTest, NamesCallStatusAndField) {
  EXPECT_EQ(
      ErrorLine("CreateVM", absl::InvalidArgumentError(
                                "config.serial_config.ports[1].port: 4 is out of range 0..3")),
      "CreateVM: InvalidArgument: config.serial_config.ports[1].port: 4 is out of range 0..3");
}

TEST(ErrorTextTest, NamesEveryStatusOfTheContract) {
  EXPECT_EQ(StatusName(absl::StatusCode::kNotFound), "NotFound");
  EXPECT_EQ(StatusName(absl::StatusCode::kAlreadyExists), "AlreadyExists");
  EXPECT_EQ(StatusName(absl::StatusCode::kFailedPrecondition), "FailedPrecondition");
  EXPECT_EQ(StatusName(absl::StatusCode::kResourceExhausted), "ResourceExhausted");
  EXPECT_EQ(StatusName(absl::StatusCode::kPermissionDenied), "PermissionDenied");
  EXPECT_EQ(StatusName(absl::StatusCode::kDeadlineExceeded), "DeadlineExceeded");
  EXPECT_EQ(StatusName(absl::StatusCode::kUnimplemented), "Unimplemented");
  EXPECT_EQ(StatusName(absl::StatusCode::kDataLoss), "DataLoss");
  EXPECT_EQ(StatusName(absl::StatusCode::kInternal), "Internal");
  EXPECT_EQ(StatusName(static_cast<absl::StatusCode>(99)), "code 99");
}

TEST(ErrorTextTest, LeavesOutAnEmptyMessage) {
  EXPECT_EQ(ErrorLine("Quit", absl::Status(absl::StatusCode::kAborted, "")), "Quit: Aborted");
}

TEST(ErrorTextTest, StaysOnOneLine) {
  EXPECT_EQ(OneLine("one\ntwo\r\nthree\n"), "one; two; three");
  EXPECT_EQ(OneLine(""), "");
  EXPECT_EQ(OneLine("\n\n"), "");
}

TEST(ErrorTextTest, DisarmsWhatATerminalWouldObey) {
  EXPECT_EQ(OneLine("a\033[2Jb\x07\x7f"), "a?[2Jb??");
  EXPECT_EQ(OneLine("\xc2\x9b"
                    "2J"),
            "?2J");  // U+009B, the one-byte CSI
  EXPECT_EQ(OneLine("K\xc3\xbc"
                    "che"),
            "K\xc3\xbc"
            "che");
  EXPECT_EQ(OneLine("a\tb"), "a\tb");
  EXPECT_EQ(OneLine(std::string_view("a\0b", 3)), "a?b");
}

}  // namespace
}  // namespace bothy::bothyctl
