#include "cmd/bothyctl/top_view.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace bothy::bothyctl {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

TopServer Busy(const std::string& address) {
  TopServer server{.address = address, .error = "", .rates = TopRates{}};
  TopRates& rates = *server.rates;
  rates.now.state = "running";
  rates.now.ram_bytes = uint64_t{256} << 20;
  rates.now.resident_bytes = uint64_t{95} << 20;
  for (const char* const number : {"0", "2", "10"}) {
    rates.now.processors[number] = {};
    rates.processors[number] = {
        {"runtime_ns", 5.12e8}, {"port", 5600}, {"mmio", 300}, {"other", 0}};
  }
  rates.now.disks["scsi0:3"] = {{"in_flight", 12}, {"errors", 0}};
  rates.disks["scsi0:3"] = {{"read_bytes", 1.2e6}, {"written_bytes", 34e3}, {"commands", 420}};
  rates.now.nics["net0"] = {};
  rates.nics["net0"] = {{"received_bytes", 12.3e6}, {"sent_bytes", 999},
                        {"received_frames", 8000},  {"sent_frames", 20},
                        {"received_drops", 1},      {"sent_drops", 2}};
  return server;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(TopViewTest, RatesAreShort) {
  EXPECT_EQ(ShortRate(0), "0");
  EXPECT_EQ(ShortRate(-1), "0");
  EXPECT_EQ(ShortRate(999.4), "999");
  EXPECT_EQ(ShortRate(999.6), "1.0k");
  EXPECT_EQ(ShortRate(9'940), "9.9k");
  EXPECT_EQ(ShortRate(9'960), "10k");
  EXPECT_EQ(ShortRate(999'400), "999k");
  EXPECT_EQ(ShortRate(999'600), "1.0M");
  EXPECT_EQ(ShortRate(5.6e9), "5.6G");
  EXPECT_EQ(ShortRate(1e300), "9999T");
  for (double rate = 1; rate < 1e17; rate *= 1.01) EXPECT_LE(ShortRate(rate).size(), 5U) << rate;
}

TEST(TopViewTest, OneServerIsShownWithItsParts) {
  EXPECT_EQ(TopText({Busy("/run/vm.sock")}, "23:01:07", {}),
            R"(bothy top  23:01:07  1 server, 1 running

VM                  STATE      CPU% EXIT/s READ/s WRIT/s   IN/s  OUT/s       RAM
/run/vm.sock        running   153.6    18k   1.2M    34k    12M    999  95M/256M

vCPU        CPU% EXITS/s  by reason
0           51.2    5.9k  port 5.6k, mmio 300
2           51.2    5.9k  port 5.6k, mmio 300
10          51.2    5.9k  port 5.6k, mmio 300

DISK      READ/s WRITE/s COMMANDS/s IN FLIGHT ERRORS
scsi0:3     1.2M     34k        420        12      0

NIC         IN/s   OUT/s  FRAMES IN/s  OUT/s  DROPS/s
net0         12M     999         8.0k     20        3
)");
}

TEST(TopViewTest, SeveralAreALineEach) {
  TopServer gone{.address = "/run/gone.sock", .error = "no\nanswer", .rates = {}};
  TopServer empty{.address = "/run/empty.sock", .error = "", .rates = TopRates{}};
  empty.rates->now.state = "none";
  TopServer named = Busy("/run/a/very/long/path/to/a/socket/vm.sock");
  const TopServer waited{.address = "/run/new.sock", .error = "", .rates = {}};
  const std::string text = TopText({gone, empty, named, waited}, "", {});
  EXPECT_THAT(text, HasSubstr("4 servers, 1 running"));
  EXPECT_THAT(text, HasSubstr("\n/run/gone.sock      no; answer\n"));
  EXPECT_THAT(text, HasSubstr("\n/run/empty.sock     none\n"));
  EXPECT_THAT(text, HasSubstr("\n../a/socket/vm.sock running"));
  EXPECT_THAT(text, HasSubstr("\n/run/new.sock       ...\n"));
  EXPECT_THAT(text, Not(HasSubstr("vCPU")));
  named.rates->now.log_id = "pod-7\x1b[2J";
  EXPECT_THAT(TopText({named}, "", {}), HasSubstr("\npod-7?[2J "));
}

TEST(TopViewTest, NothingIsWiderOrLongerThanTheTerminal) {
  TopServer server = Busy("/run/vm.sock");
  for (int i = 0; i < 20; ++i) server.rates->processors["0"]["reason" + std::to_string(i)] = 1e6;
  server.rates->now.log_id =
      "\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4";
  for (const size_t columns : {0, 41, 80, 81, 132}) {
    for (const size_t rows : {0, 5, 12, 100}) {
      const auto lines = Lines(TopText({server}, "23:01:07", {.columns = columns, .rows = rows}));
      EXPECT_LE(lines.size(), std::max<size_t>(rows, 4));
      EXPECT_THAT(lines, Each(SizeIs(testing::Le(std::max<size_t>(columns, 40)))));
    }
  }
  EXPECT_THAT(TopText({server}, "", {.columns = 80, .rows = 6}),
              testing::EndsWith("... 10 more lines\n"));
}

TEST(TopViewTest, JsonIsJson) {
  TopServer gone{.address = "/run/\"gone\".sock", .error = "no\nanswer", .rates = {}};
  const std::string json = TopJson({Busy("/run/vm.sock"), gone});
  EXPECT_EQ(std::count(json.begin(), json.end(), '\n'), 1);
  google::protobuf::Struct parsed;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &parsed).ok()) << json;
  const auto& servers = parsed.fields().at("servers").list_value();
  ASSERT_EQ(servers.values_size(), 2);
  const auto& busy = servers.values(0).struct_value().fields();
  EXPECT_EQ(busy.at("resident_bytes").number_value(), 95 << 20);
  const auto& disk = busy.at("disks").struct_value().fields().at("scsi0:3").struct_value().fields();
  EXPECT_EQ(disk.at("commands").number_value(), 420);
  EXPECT_EQ(servers.values(1).struct_value().fields().at("error").string_value(), "no\nanswer");
}

}  // namespace
}  // namespace bothy::bothyctl
