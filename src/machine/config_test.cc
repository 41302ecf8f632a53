#include "machine/config.h"

#include <gtest/gtest.h>

namespace bothy::machine {
namespace {

const ImageConfig kThere = {.path = "/a.vhdx", .type = ImageType::kVhdx, .read_only = false};

TEST(CheckNamesImageTest, NothingSaidFits) {
  EXPECT_TRUE(CheckNamesImage({}, kThere).ok());
  EXPECT_TRUE(CheckNamesImage(kThere, kThere).ok());
  EXPECT_TRUE(CheckNamesImage({.path = "/a.vhdx", .type = ImageType::kVhd1}, kThere).ok());
}

TEST(CheckNamesImageTest, WhatDoesNotFitIsNamed) {
  const auto message = [](const ImageConfig& asked) {
    const absl::Status status = CheckNamesImage(asked, kThere);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(message({.path = "/b.vhdx"}),
            "host_path: is \"/b.vhdx\", but the disk there is \"/a.vhdx\"; leave it out or name "
            "that one");
  EXPECT_EQ(message({.path = {}, .type = ImageType::kPhysical}),
            "type: is a PHYSICAL disk, but the disk there is a VHDX");
  EXPECT_EQ(message({.path = {}, .read_only = true}),
            "read_only: is set, but the disk there is writable");
}

}  // namespace
}  // namespace bothy::machine
