#include "cmd/bothyctl/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cmd/bothyctl/command_line.h"

namespace bothy::bothyctl {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

class CompletionTest : public ::testing::Test {
 protected:
  std::vector<std::string> Words(const std::vector<std::string>& words) {
    std::vector<std::string> candidates;
    for (const auto& candidate : Complete(commands_.app(), words).candidates) {
      candidates.push_back(candidate.word);
    }
    return candidates;
  }
  bool Files(const std::vector<std::string>& words) {
    return Complete(commands_.app(), words).files;
  }

  CommandLine commands_;
};

TEST_F(CompletionTest, OffersEveryVerbThatHelpLists) {
  std::set<std::string> verbs;
  for (const CLI::App* verb : commands_.app().get_subcommands([](const CLI::App*) { return true; }))
    verbs.insert(verb->get_name());
  const std::vector<std::string> words = Words({""});
  EXPECT_EQ(std::set<std::string>(words.begin(), words.end()), verbs);
  EXPECT_THAT(verbs, IsSupersetOf({"run", "create", "teardown", "pause", "resume", "wait",
                                   "inspect", "capabilities", "properties", "modify", "socket",
                                   "quit", "completion"}));
}

TEST_F(CompletionTest, OffersEveryOptionOfEveryVerb) {
  const std::function<void(const CLI::App*, std::vector<std::string>)> check =
      [&](const CLI::App* app, std::vector<std::string> words) {
        words.emplace_back("--");
        const auto offered = Words(words);
        for (const CLI::Option* option : app->get_options()) {
          for (const std::string& name : option->get_lnames()) {
            EXPECT_THAT(offered, Contains("--" + name)) << app->get_name();
          }
        }
        words.pop_back();
        for (const CLI::App* verb : app->get_subcommands([](const CLI::App*) { return true; })) {
          std::vector<std::string> below = words;
          below.push_back(verb->get_name());
          check(verb, below);
        }
      };
  check(&commands_.app(), {});
}

TEST_F(CompletionTest, FiltersByWhatIsThere) {
  EXPECT_THAT(Words({"pa"}), ElementsAre("pause"));
  EXPECT_THAT(Words({"xyz"}), IsEmpty());
  EXPECT_THAT(Words({"run", "--ke"}), ElementsAre("--kernel"));
}

TEST_F(CompletionTest, OffersGlobalOptionsBehindAVerb) {
  EXPECT_THAT(Words({"inspect", "--"}),
              AllOf(Contains("--depth"), Contains("--address"), Contains("--json"),
                    Not(Contains("--version")), Not(Contains("--kernel"))));
}

TEST_F(CompletionTest, GoesDownToSubcommandsPastOptions) {
  EXPECT_THAT(Words({"-a", "/x.sock", "--json", "modify", "s"}), ElementsAre("scsi-disk"));
  EXPECT_THAT(Words({"--address=/x.sock", "completion", ""}), ElementsAre("bash", "zsh", "fish"));
  // The value of an option is no verb.
  EXPECT_THAT(Words({"-a", "modify", "s"}), ElementsAre("socket"));
}

TEST_F(CompletionTest, OffersValues) {
  EXPECT_THAT(Words({"run", "--on-crash", ""}), ElementsAre("halt", "restart"));
  EXPECT_THAT(Words({"run", "--on-crash=h"}), ElementsAre("--on-crash=halt"));
  EXPECT_THAT(Words({"modify", "memory", ""}), ElementsAre("add", "remove", "update"));
  EXPECT_THAT(Words({"modify", "memory", "add", ""}), IsEmpty());
  EXPECT_THAT(Words({"properties", "memory", "p"}), ElementsAre("processor"));
  EXPECT_THAT(Words({"run", "--memory", ""}), IsEmpty());
}

TEST_F(CompletionTest, OffersFilesWhereAPathIsDue) {
  EXPECT_TRUE(Files({"run", "--kernel", ""}));
  EXPECT_TRUE(Files({"run", "--kernel=/b"}));
  EXPECT_TRUE(Files({"-a", ""}));
  EXPECT_TRUE(Files({"run", "--serial", "0=/r"}));
  EXPECT_FALSE(Files({"run", "--serial", "0"}));
  EXPECT_TRUE(Files({"run", "--disk", "a"}));
  EXPECT_TRUE(Files({"create", "--pmem="}));
  EXPECT_TRUE(Files({"modify", "scsi-disk", "add", "0:1", ""}));
  EXPECT_FALSE(Files({"modify", "scsi-disk", "add", ""}));
  EXPECT_FALSE(Files({"run", "--cpus", ""}));
  EXPECT_FALSE(Files({""}));
}

TEST_F(CompletionTest, DescribesWhatItOffers) {
  const Completion completion = Complete(commands_.app(), {"cap"});
  ASSERT_EQ(completion.candidates.size(), 1U);
  EXPECT_EQ(CompletionText(completion),
            "capabilities\t" + completion.candidates[0].description + "\n");
  EXPECT_FALSE(completion.candidates[0].description.empty());
  EXPECT_EQ(CompletionText({.candidates = {}, .files = true}), ":files\n");
}

TEST_F(CompletionTest, OffersNothingWithoutAWord) { EXPECT_THAT(Words({}), IsEmpty()); }

}  // namespace
}  // namespace bothy::bothyctl
