#include "inspect/inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bothy::inspect {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;

// The answer to one question; null while there is none.
struct Asked {
  std::shared_ptr<Inspection> inspection;
  std::shared_ptr<std::optional<absl::StatusOr<Value>>> answer;
};

Asked Start(std::string_view path, uint32_t levels, absl::FunctionRef<void(Node&)> root) {
  Asked asked{.inspection = nullptr,
              .answer = std::make_shared<std::optional<absl::StatusOr<Value>>>()};
  const auto query = Query::Parse(path, levels);
  EXPECT_TRUE(query.ok()) << query.status();
  asked.inspection =
      Inspection::Start(*query, root, [answer = asked.answer](absl::StatusOr<Value> value) {
        EXPECT_FALSE(answer->has_value()) << "answered twice";
        *answer = std::move(value);
      });
  return asked;
}

absl::StatusOr<Value> Ask(std::string_view path, uint32_t levels,
                          absl::FunctionRef<void(Node&)> root) {
  const Asked asked = Start(path, levels, root);
  EXPECT_TRUE(asked.answer->has_value());
  return asked.answer->value_or(absl::InternalError("no answer"));
}

struct Clock {
  void Inspect(Node& node) const {
    node.Value("ticks", 7U);
    node.Address("base", 0x70);
  }
};

// What of it has been described.
struct Machine {
  std::vector<std::string> described;
  void Inspect(Node& root) {
    root.Value("name", "m");
    root.Child("devices", [this](Node& devices) {
      described.push_back("devices");
      devices.Value("count", int32_t{2});
      devices.Child("clock", Clock());
      devices.Child("disk", [this](Node& disk) {
        described.push_back("disk");
        disk.Value("read_only", true);
        disk.Child("cache", [this](Node& cache) {
          described.push_back("cache");
          cache.Value("fill", 0.5);
        });
      });
    });
    root.Child("empty", [](Node&) {});
  }
  absl::StatusOr<Value> Ask(std::string_view path, uint32_t levels) {
    return inspect::Ask(path, levels, [this](Node& root) { Inspect(root); });
  }
};

const Value kClock = Directory{{{"ticks", uint64_t{7}}, {"base", std::string("0x70")}}};

TEST(InspectionTest, LevelsSayHowFarDirectoriesAreFilledIn) {
  Machine machine;
  EXPECT_EQ(*machine.Ask("", 0),
            Value(Directory{{{"name", std::string("m")}, {"devices", Null()}, {"empty", Null()}}}));
  EXPECT_THAT(machine.described, ElementsAre());
  EXPECT_EQ(
      *machine.Ask("", 1),
      Value(Directory{
          {{"name", std::string("m")},
           {"devices", Directory{{{"count", int64_t{2}}, {"clock", Null()}, {"disk", Null()}}}},
           {"empty", Directory()}}}));
  EXPECT_THAT(machine.described, ElementsAre("devices"));
  EXPECT_EQ(*machine.Ask("devices", 1),
            Value(Directory{{{"count", int64_t{2}},
                             {"clock", kClock},
                             {"disk", Directory{{{"read_only", true}, {"cache", Null()}}}}}}));
}

TEST(InspectionTest, APathLeadsToADirectoryOrAValue) {
  Machine machine;
  EXPECT_EQ(*machine.Ask("devices/clock", 0), kClock);
  EXPECT_EQ(*machine.Ask("/devices/clock/", UINT32_MAX), kClock);
  EXPECT_EQ(*machine.Ask("devices/clock/ticks", 0), Value(uint64_t{7}));
  EXPECT_EQ(*machine.Ask("devices/disk/cache/fill", 3), Value(0.5));
  EXPECT_EQ(*machine.Ask("empty", 0), Value(Directory()));
}

TEST(InspectionTest, OnlyWhatThePathGoesThroughIsDescribed) {
  Machine machine;
  EXPECT_TRUE(machine.Ask("devices/disk", 0).ok());
  EXPECT_THAT(machine.described, ElementsAre("devices", "disk"));
  machine.described.clear();
  EXPECT_TRUE(machine.Ask("name", 5).ok());
  EXPECT_THAT(machine.described, ElementsAre());
}

TEST(InspectionTest, WhatThereIsNotIsNamedWithWhatThereIs) {
  Machine machine;
  EXPECT_EQ(machine.Ask("nic", 0).status(),
            absl::NotFoundError("query: the root has no \"nic\"; it has name, devices, empty"));
  EXPECT_EQ(machine.Ask("devices/floppy/1", 0).status(),
            absl::NotFoundError("query: \"devices\" has no \"floppy\"; it has count, clock, disk"));
  EXPECT_EQ(machine.Ask("devices/clock/x", 0).status(),
            absl::NotFoundError("query: \"devices/clock\" has no \"x\"; it has ticks, base"));
  EXPECT_EQ(machine.Ask("empty/x", 0).status(),
            absl::NotFoundError("query: \"empty\" has no \"x\"; it has nothing"));
  EXPECT_EQ(machine.Ask("devices/count/x/y", 0).status(),
            absl::NotFoundError("query: \"devices/count\" is a value, there is no \"x\" below it"));
}

TEST(InspectionTest, AnErrorIsShortWhateverIsAskedFor) {
  const auto many = [](Node& root) {
    for (int i = 0; i < 1000; ++i) root.Value(std::to_string(i), i);
  };
  const absl::Status status = Ask(std::string(4000, 'x'), 0, many).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_LT(status.message().size(), 512U);
  EXPECT_THAT(std::string(status.message()), ::testing::EndsWith("14, 15, ..."));
}

TEST(InspectionTest, NoTreeIsTooDeepForReadersOfMessages) {
  struct Nest {
    static void Describe(Node& node, int depth) {
      if (depth == 0) return;
      node.Child("in", [depth](Node& child) { Describe(child, depth - 1); });
    }
  };
  const auto answer = Ask("in", UINT32_MAX, [](Node& root) { Nest::Describe(root, 100); });
  ASSERT_TRUE(answer.ok()) << answer.status();
  uint32_t depth = 0;
  const Value* value = &*answer;
  while (const auto* directory = std::get_if<Directory>(value)) {
    ++depth;
    value = &directory->entries.at(0).value;
  }
  EXPECT_EQ(*value, Value(Null()));
  EXPECT_EQ(depth, Inspection::kMaxLevels + 1);
}

TEST(QueryTest, PathsAreComponents) {
  const auto path = [](std::string_view text) { return Query::Parse(text, 0)->path; };
  EXPECT_THAT(path(""), ElementsAre());
  EXPECT_THAT(path("/"), ElementsAre());
  EXPECT_THAT(path("a"), ElementsAre("a"));
  EXPECT_THAT(path("/a/b.c/ d/"), ElementsAre("a", "b.c", " d"));
}

TEST(QueryTest, EmptyComponentsAndEndlessPathsAreRefused) {
  EXPECT_EQ(Query::Parse("a//b", 0).status(),
            absl::InvalidArgumentError("query: component 2 is empty"));
  EXPECT_EQ(Query::Parse("//a", 0).status(),
            absl::InvalidArgumentError("query: component 1 is empty"));
  EXPECT_EQ(Query::Parse("a//", 0).status(),
            absl::InvalidArgumentError("query: component 2 is empty"));
  EXPECT_TRUE(Query::Parse(std::string(4096, 'a'), 0).ok());
  EXPECT_EQ(Query::Parse(std::string(4097, 'a'), 0).status(),
            absl::InvalidArgumentError("query: 4097 bytes are more than 4096"));
}

// A tree two of whose directories another thread describes.
struct Elsewhere {
  std::vector<Later> asked;
  void Describe(Node& root) {
    root.Value("here", 1);
    root.Child("disks", [this](Node& disks) {
      disks.Value("count", 2);
      for (const char* name : {"a", "b"}) {
        disks.Elsewhere(name, [this](Later later) { asked.push_back(std::move(later)); });
      }
    });
  }
  Asked Start(std::string_view path, uint32_t levels) {
    return inspect::Start(path, levels, [this](Node& root) { Describe(root); });
  }
  static void Disk(Node& disk) {
    disk.Value("size", 512);
    disk.Child("log", [](Node& log) { log.Value("entries", 3); });
  }
};

const Value kDisk = Directory{{{"size", int64_t{512}}, {"log", Null()}}};

TEST(ElsewhereTest, IsPutInItsPlaceWhenAllHasCome) {
  Elsewhere tree;
  const Asked asked = tree.Start("", 2);
  ASSERT_EQ(tree.asked.size(), 2U);
  std::thread([&] { tree.asked[1].Describe(Elsewhere::Disk); }).join();
  EXPECT_FALSE(asked.answer->has_value());
  std::thread([&] { tree.asked[0].Describe([](Node& disk) { disk.Value("x", 1); }); }).join();
  ASSERT_TRUE(asked.answer->has_value());
  EXPECT_EQ(***asked.answer,
            Value(Directory{{{"here", int64_t{1}},
                             {"disks", Directory{{{"count", int64_t{2}},
                                                  {"a", Directory{{{"x", int64_t{1}}}}},
                                                  {"b", kDisk}}}}}}));
}

TEST(ElsewhereTest, IsNotAskedForMoreThanTheQuestion) {
  Elsewhere tree;
  EXPECT_TRUE(tree.Start("", 1).answer->has_value());
  EXPECT_TRUE(tree.Start("here", 9).answer->has_value());
  EXPECT_TRUE(tree.Start("disks/c", 9).answer->has_value());
  EXPECT_TRUE(tree.asked.empty());
}

TEST(ElsewhereTest, APathGoesThroughIt) {
  Elsewhere tree;
  const Asked whole = tree.Start("disks/b", 0);
  const Asked value = tree.Start("disks/b/log/entries", 0);
  const Asked nothing = tree.Start("disks/b/log/x", 0);
  ASSERT_EQ(tree.asked.size(), 3U);
  for (const Later& later : tree.asked) later.Describe(Elsewhere::Disk);
  EXPECT_EQ(***whole.answer, kDisk);
  EXPECT_EQ(***value.answer, Value(int64_t{3}));
  EXPECT_EQ((*nothing.answer)->status(),
            absl::NotFoundError("query: \"disks/b/log\" has no \"x\"; it has entries"));
}

TEST(ElsewhereTest, MayHaveFurtherOnes) {
  Elsewhere tree;
  std::vector<Later> inner;
  const Asked asked = tree.Start("disks", 9);
  const auto describe = [&](Node& disk) {
    disk.Value("size", 1);
    disk.Child("chain", [&](Node& chain) {
      chain.Elsewhere("parent", [&](Later later) { inner.push_back(std::move(later)); });
    });
  };
  for (const Later& later : tree.asked) later.Describe(describe);
  EXPECT_FALSE(asked.answer->has_value());
  ASSERT_EQ(inner.size(), 2U);
  inner[1].Describe([](Node& parent) { parent.Value("n", 1); });
  inner[0].Describe([](Node& parent) { parent.Value("n", 0); });
  ASSERT_TRUE(asked.answer->has_value());
  const auto disk = [](int64_t n) {
    return Value(Directory{
        {{"size", int64_t{1}}, {"chain", Directory{{{"parent", Directory{{{"n", n}}}}}}}}});
  };
  EXPECT_EQ(***asked.answer,
            Value(Directory{{{"count", int64_t{2}}, {"a", disk(0)}, {"b", disk(1)}}}));
}

TEST(ElsewhereTest, WhoHasGoneAwayIsSaidToHave) {
  Elsewhere tree;
  const Asked asked = tree.Start("disks", 1);
  const Asked through = tree.Start("disks/a/size", 1);
  const Asked itself = tree.Start("disks/a", 1);
  tree.asked[0].Describe([](Node&) {});
  tree.asked.clear();
  EXPECT_EQ(
      ***asked.answer,
      Value(Directory{{{"count", int64_t{2}}, {"a", Directory()}, {"b", std::string("(gone)")}}}));
  EXPECT_EQ((*through.answer)->status(),
            absl::UnavailableError("query: \"disks/a\" can't be looked into: (gone)"));
  EXPECT_EQ(***itself.answer, Value(std::string("(gone)")));
}

TEST(ElsewhereTest, WhoIsLateIsNotWaitedFor) {
  Elsewhere tree;
  const Asked asked = tree.Start("disks", 1);
  const Asked through = tree.Start("disks/a/size", 1);
  tree.asked[1].Describe([](Node&) {});
  asked.inspection->GiveUp();
  through.inspection->GiveUp();
  EXPECT_EQ(***asked.answer, Value(Directory{{{"count", int64_t{2}},
                                              {"a", std::string("(no answer in time)")},
                                              {"b", Directory()}}}));
  EXPECT_EQ((*through.answer)->status(),
            absl::UnavailableError("query: \"disks/a\" can't be looked into: (no answer in time)"));
  // What comes all the same changes nothing.
  for (const Later& later : tree.asked) later.Describe(Elsewhere::Disk);
  asked.inspection->GiveUp();
}

TEST(ElsewhereTest, OneAnswerOfManyThreads) {
  for (int round = 0; round < 50; ++round) {
    Elsewhere tree;
    const Asked asked = tree.Start("", 9);
    std::vector<std::thread> threads;
    for (const Later& later : tree.asked) {
      threads.emplace_back([later] { later.Describe(Elsewhere::Disk); });
    }
    threads.emplace_back([&] { asked.inspection->GiveUp(); });
    tree.asked.clear();
    for (std::thread& thread : threads) thread.join();
    ASSERT_TRUE(asked.answer->has_value());
    EXPECT_TRUE((*asked.answer)->ok());
  }
}

}  // namespace
}  // namespace bothy::inspect
