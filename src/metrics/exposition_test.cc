#include "metrics/exposition.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "metrics/catalogue.h"
#include "support/check.h"

namespace bothy::metrics {
namespace {

using inspect::Directory;
using inspect::Null;
using inspect::Value;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;

std::string FileText(const std::string& path) {
  const std::ifstream file(path);
  CHECK(file.good());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Value Root(std::string name, Value value) {
  return Directory{{{std::move(name), std::move(value)}}};
}

TEST(ExpositionTest, StarsInThePathAreLabels) {
  const Value exits = Directory{{{"port", uint64_t{7}}, {"mmio", uint64_t{UINT64_MAX}}}};
  const Value vcpu = Directory{{{"runtime_ns", uint64_t{1'000'000'001}}, {"exits", exits}}};
  EXPECT_EQ(Exposition(Root("processors", Directory{{{"0", vcpu}, {"1", vcpu}}})),
            "# HELP bothy_vcpu_cpu_seconds_total CPU time of the vCPU's thread, guest code "
            "included.\n"
            "# TYPE bothy_vcpu_cpu_seconds_total counter\n"
            "bothy_vcpu_cpu_seconds_total{vcpu=\"0\"} 1.000000001\n"
            "bothy_vcpu_cpu_seconds_total{vcpu=\"1\"} 1.000000001\n"
            "# HELP bothy_vcpu_exits_total Exits of the vCPU to this process, by reason.\n"
            "# TYPE bothy_vcpu_exits_total counter\n"
            "bothy_vcpu_exits_total{vcpu=\"0\",reason=\"port\"} 7\n"
            "bothy_vcpu_exits_total{vcpu=\"0\",reason=\"mmio\"} 18446744073709551615\n"
            "bothy_vcpu_exits_total{vcpu=\"1\",reason=\"port\"} 7\n"
            "bothy_vcpu_exits_total{vcpu=\"1\",reason=\"mmio\"} 18446744073709551615\n");
}

TEST(ExpositionTest, TextIsALabel) {
  const Value vm =
      Directory{{{"state", std::string("running")}, {"log_id", std::string("a\"b\\c\nd\xFF")}}};
  const std::string text = Exposition(Root("vm", vm));
  EXPECT_THAT(text, HasSubstr("\nbothy_vm_state{state=\"running\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nbothy_vm_info{log_id=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD\"} 1\n"));
}

TEST(ExpositionTest, TheUnitOfANameIsTheMetrics) {
  const Value timings = Directory{{{"create_ns", int64_t{1'500'000'000}}}};
  EXPECT_THAT(Exposition(Root("vm", Directory{{{"timings", timings}}})),
              HasSubstr("\nbothy_vm_startup_seconds{step=\"create\"} 1.500000000\n"));
}

TEST(ExpositionTest, TruthIsANumber) {
  const Value card = Directory{{{"card", Directory{{{"link_up", true}}}}}};
  EXPECT_THAT(Exposition(Root("devices", Directory{{{"net0", card}}})),
              HasSubstr("\nbothy_net_link_up{nic=\"net0\"} 1\n"));
}

TEST(ExpositionTest, WhatIsntThereIsLeftOut) {
  EXPECT_THAT(Exposition(Directory()), IsEmpty());
  EXPECT_THAT(Exposition(Null()), IsEmpty());
  EXPECT_THAT(Exposition(Root("devices", std::string("(no answer in time)"))), IsEmpty());
  // A thread that was late, beside one that wasn't.
  const Value late = Directory{{{"card", std::string("(no answer in time)")}}};
  const Value there = Directory{{{"card", Directory{{{"link_up", false}}}}}};
  const std::string text =
      Exposition(Root("devices", Directory{{{"net0", late}, {"net1", there}}}));
  EXPECT_THAT(text, HasSubstr("bothy_net_link_up{nic=\"net1\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("net0")));
  // A text where a number should be, and a number where a text should be.
  EXPECT_THAT(
      Exposition(Root("vm", Directory{{{"restarts", std::string("x")}, {"state", uint64_t{1}}}})),
      IsEmpty());
}

TEST(CatalogueTest, NamesAreThoseThatPrometheusLikes) {
  std::set<std::string_view> names;
  for (const Definition& definition : Catalogue()) {
    const std::string name(definition.name);
    EXPECT_TRUE(names.insert(definition.name).second) << name;
    EXPECT_THAT(name, MatchesRegex("bothy_[a-z][a-z0-9_]*"));
    EXPECT_EQ(definition.type == Type::kCounter, definition.name.ends_with("_total")) << name;
    EXPECT_TRUE(definition.help.ends_with('.')) << name;
    EXPECT_EQ(definition.reading == Reading::kNanoseconds,
              name.find("_seconds") != std::string::npos)
        << name;
  }
}

TEST(CatalogueTest, EachLabelHasItsPlace) {
  for (const Definition& definition : Catalogue()) {
    const auto stars = std::count(definition.path.begin(), definition.path.end(), '*');
    const size_t texts = definition.reading == Reading::kText ? 1 : 0;
    EXPECT_EQ(definition.labels.size(), static_cast<size_t>(stars) + texts) << definition.name;
    EXPECT_LE(definition.labels.size(), kMaxLabels) << definition.name;
  }
}

TEST(CatalogueTest, TheManualHasThemAll) {
  const std::string manual = FileText(BOTHY_SOURCE_DIR "/docs/metrics.md");
  for (const Definition& definition : Catalogue()) {
    EXPECT_THAT(manual, HasSubstr("`" + std::string(definition.name) + "`"));
  }
}

TEST(CatalogueTest, TheDashboardAsksForNothingElse) {
  const std::string dashboard = FileText(BOTHY_SOURCE_DIR "/contrib/grafana/bothy.json");
  google::protobuf::Struct parsed;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(dashboard, &parsed).ok());
  std::set<std::string> known;
  for (const Definition& definition : Catalogue()) known.insert(std::string(definition.name));
  size_t found = 0;
  for (size_t at = dashboard.find("bothy_"); at != std::string::npos; ++found) {
    const size_t end = dashboard.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_", at);
    const std::string name = dashboard.substr(at, end - at);
    EXPECT_EQ(known.count(name), 1U) << name;
    at = dashboard.find("bothy_", end);
  }
  EXPECT_GT(found, 10U);
}

}  // namespace
}  // namespace bothy::metrics
