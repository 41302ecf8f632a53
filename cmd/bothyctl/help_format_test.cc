#include "cmd/bothyctl/help_format.h"

#include <gtest/gtest.h>

#include <functional>

#include "cmd/bothyctl/command_line.h"

namespace bothy::bothyctl {
namespace {

TEST(WrapTest, BreaksBetweenWords) {
  EXPECT_EQ(Wrap("one two three", 12, 4), "one two\n    three");
  EXPECT_EQ(Wrap("one", 12, 4), "one");
  EXPECT_EQ(Wrap("", 12, 4), "");
  EXPECT_EQ(Wrap("averyveryverylongword x", 8, 2), "averyveryverylongword\n  x");
}

TEST(HelpTest, HasExamplesAndFitsItsWidthAtEveryLevel) {
  CommandLine commands;
  const std::function<void(const CLI::App*)> check = [&](const CLI::App* app) {
    const std::string help = app->help();
    EXPECT_NE(help.find("Examples:\n  "), std::string::npos) << app->get_name();
    for (size_t at = 0; at < help.size();) {
      const size_t end = std::min(help.find('\n', at), help.size());
      EXPECT_LE(end - at, 100U) << app->get_name() << ": " << help.substr(at, end - at);
      at = end + 1;
    }
    for (const CLI::App* verb : app->get_subcommands([](const CLI::App*) { return true; })) {
      EXPECT_FALSE(verb->get_description().empty()) << verb->get_name();
      check(verb);
    }
    for (const CLI::Option* option : app->get_options()) {
      EXPECT_FALSE(option->get_description().empty()) << option->get_name();
    }
  };
  check(&commands.app());
}

}  // namespace
}  // namespace bothy::bothyctl
