#include "cmd/bothyctl/top_sample.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <string>

namespace bothy::bothyctl {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::IsEmpty;

TopSample Read(const std::string& json, int second = 0) {
  google::protobuf::Value root;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &root).ok()) << json;
  return ReadTopSample(root, steady_clock::time_point(seconds(second)));
}

constexpr char kTree[] = R"({
  "vm": {"state": "running", "log_id": "pod-7"},
  "memory": {"ram_bytes": 268435456, "resident_bytes": "18446744073709551615"},
  "processors": {"0": {"runtime_ns": 1000, "exits": {"port": 5, "mmio": 2}}},
  "devices": {
    "scsi0": {"luns": {"3": {"read_bytes": 100, "written_bytes": 7, "commands": 4, "in_flight": 2,
                             "errors": 1}}},
    "net0": {"card": {"backend": {"sent_bytes": 9, "received_frames": 3,
                                  "send_drops": {"runt": 1, "refused_by_host": 2}}}},
    "pmem0": {"written_bytes": 1}}})";

TEST(TopSampleTest, ReadsTheTree) {
  const TopSample sample = Read(kTree);
  EXPECT_EQ(sample.state, "running");
  EXPECT_EQ(sample.log_id, "pod-7");
  EXPECT_EQ(sample.ram_bytes, 268435456U);
  EXPECT_EQ(sample.resident_bytes, UINT64_MAX);
  ASSERT_EQ(sample.processors.count("0"), 1U);
  EXPECT_EQ(sample.processors.at("0"), (Counters{{"runtime_ns", 1000}, {"port", 5}, {"mmio", 2}}));
  ASSERT_EQ(sample.disks.count("scsi0:3"), 1U);
  EXPECT_EQ(sample.disks.at("scsi0:3").at("in_flight"), 2U);
  ASSERT_EQ(sample.nics.count("net0"), 1U);
  EXPECT_EQ(sample.nics.at("net0").at("sent_bytes"), 9U);
  EXPECT_EQ(sample.nics.at("net0").at("sent_drops"), 3U);
}

TEST(TopSampleTest, WhatIsNotAsExpectedCountsAsNothing) {
  const std::string trees[] = {
      "null",
      "1",
      "\"text\"",
      "[]",
      "{}",
      R"({"vm": 1, "processors": {"0": 5}, "devices": []})",
      R"({"processors": {"0": {"runtime_ns": -5, "exits": {"port": "many"}}}})",
      R"({"devices": {"scsi0": {"luns": {"0": "gone"}}, "net0": {"card": null}}})",
      R"({"memory": {"ram_bytes": 1e300}})",
  };
  for (const std::string& json : trees) {
    SCOPED_TRACE(json);
    const TopSample sample = Read(json);
    EXPECT_EQ(sample.state, "");
    EXPECT_EQ(sample.ram_bytes, 0U);
    for (const auto& [name, counters] : sample.processors) {
      for (const auto& [counter, value] : counters) EXPECT_EQ(value, 0U) << name << counter;
    }
  }
}

TEST(TopSampleTest, RatesAreOfASecond) {
  const TopSample before = Read(kTree, 10);
  const TopRates rates = RatesBetween(before, Read(R"({
    "processors": {"0": {"runtime_ns": 2000001000, "exits": {"port": 25, "mmio": 2, "new": 9}},
                   "1": {"runtime_ns": 5, "exits": {}}},
    "devices": {
      "scsi0": {"luns": {"3": {"read_bytes": 300, "written_bytes": 3}}},
      "net0": {"card": {"backend": {"sent_bytes": 29, "send_drops": {}}}}}})",
                                                   12));
  EXPECT_EQ(rates.processors.at("0"), (Rates{{"runtime_ns", 1e9}, {"port", 10}, {"mmio", 0}}));
  EXPECT_EQ(ExitsOf(rates.processors.at("0")), 10);
  EXPECT_EQ(rates.processors.count("1"), 0U) << "it has just come";
  EXPECT_EQ(rates.disks.at("scsi0:3").at("read_bytes"), 100);
  EXPECT_EQ(rates.disks.at("scsi0:3").at("written_bytes"), 1.5) << "begun anew";
  EXPECT_EQ(rates.disks.at("scsi0:3").count("in_flight"), 0U);
  EXPECT_EQ(Total(rates.nics, "sent_bytes"), 10);
  EXPECT_EQ(Total(rates.nics, "nothing"), 0);
}

TEST(TopSampleTest, TwoOfOneMomentHaveNoRates) {
  const TopRates rates = RatesBetween(Read(kTree, 10), Read(kTree, 10));
  EXPECT_THAT(rates.processors, IsEmpty());
  EXPECT_EQ(rates.now.state, "running");
}

}  // namespace
}  // namespace bothy::bothyctl
