#include "ttrpc/unix_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "support/testing/test_folder.h"
#include "ttrpc/client.h"

namespace bothy::ttrpc {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

class UnixSocketTest : public ::testing::Test {
 protected:
  // A socket file whose process is gone.
  void LeaveStaleSocket() {
    absl::StatusOr<BoundSocket> bound = ListenUnix(folder_ / "stale.sock");
    ASSERT_TRUE(bound.ok()) << bound.status();
    std::filesystem::rename(folder_ / "stale.sock", path_);
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "vm.sock";
};

TEST_F(UnixSocketTest, ListensForClientsOfItsOwnerAndRemovesItsFile) {
  {
    const absl::StatusOr<BoundSocket> bound = ListenUnix(path_);
    ASSERT_TRUE(bound.ok()) << bound.status();
    EXPECT_TRUE(Client::Connect(path_).ok());
    struct stat found;
    ASSERT_EQ(::stat(path_.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0600u);
  }
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(UnixSocketTest, AClientIsToldWhyItCannotConnect) {
  EXPECT_EQ(Client::Connect(path_).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Client::Connect("").status().code(), StatusCode::kInvalidArgument);
  LeaveStaleSocket();
  const absl::Status status = Client::Connect(path_).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
}

TEST_F(UnixSocketTest, WhateverIsInTheWayExistsAlready) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(ListenUnix(path_).status().code(), StatusCode::kAlreadyExists);
  std::filesystem::remove(path_);
  const absl::StatusOr<BoundSocket> bound = ListenUnix(path_);
  ASSERT_TRUE(bound.ok()) << bound.status();
  const absl::Status status = ListenUnix(path_).status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_TRUE(Client::Connect(path_).ok());
}

TEST_F(UnixSocketTest, OnlyOneOfManyReplacesAStaleSocket) {
  for (int round = 0; round < 20; ++round) {
    LeaveStaleSocket();
    std::vector<absl::StatusOr<BoundSocket>> results(4);
    std::vector<std::thread> threads;
    threads.reserve(results.size());
    for (auto& result : results) threads.emplace_back([&] { result = ListenUnix(path_); });
    for (auto& thread : threads) thread.join();
    int won = 0;
    for (const auto& result : results) {
      won += result.ok();
      if (!result.ok()) {
        EXPECT_EQ(result.status().code(), StatusCode::kAlreadyExists) << result.status();
      }
    }
    EXPECT_EQ(won, 1);
    EXPECT_TRUE(Client::Connect(path_).ok());
  }
}

TEST_F(UnixSocketTest, RefusesPathsThatCannotBe) {
  EXPECT_EQ(ListenUnix("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ListenUnix(folder_ / "missing/vm.sock").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace bothy::ttrpc
