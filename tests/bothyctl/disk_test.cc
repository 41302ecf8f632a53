// `bothyctl disk` on files of the host, with QEMU's tools as the judge.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/testing/sparse_file.h"
#include "support/testing/test_folder.h"
#include "support/unique_fd.h"
#include "tests/bothyctl/child.h"

namespace bothy::bothyctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = 1 << 20;

struct Result {
  int status = 0;
  std::string output;
  std::string error_output;
};

// Formats as bothyctl and QEMU name them.
struct Kind {
  std::string name;  // of a file
  std::vector<std::string> flags;
  std::string qemu;
};
const Kind kKinds[] = {{"flat.raw", {}, "raw"},
                       {"dynamic.vhd", {}, "vpc"},
                       {"fixed.vhd", {"--type", "fixed"}, "vpc"},
                       {"dynamic.vhdx", {"--block-size", "1M"}, "vhdx"},
                       {"fixed.vhdx", {"--type", "fixed"}, "vhdx"}};

class DiskVerbsTest : public ::testing::Test {
 protected:
  Result Run(std::vector<std::string> words) {
    words.insert(words.begin(), {BOTHYCTL, "disk"});
    Child child(words, {});
    child.CloseInput();
    const int status = child.AwaitEnd();
    return {status, child.output(), child.error_output()};
  }
  std::string RunOk(const std::vector<std::string>& words) {
    const Result result = Run(words);
    EXPECT_EQ(result.status, 0) << result.error_output;
    return result.output;
  }
  static void ExpectSame(const Kind& a, const std::string& a_path, const std::string& b_path) {
    std::string output;
    EXPECT_EQ(
        disk::RunCommand(
            absl::StrCat("qemu-img compare -f ", a.qemu, " -F raw ", a_path, " ", b_path), output),
        0)
        << output;
    EXPECT_EQ(output, "Images are identical.\n");
  }
  // A disk with data and zeros in pieces of all sizes.
  std::string MakeRaw(const std::string& name, uint64_t size, uint64_t seed) {
    std::string path = folder_ / name;
    std::ofstream file(path, std::ios::binary);
    std::mt19937_64 random(seed);
    std::vector<uint64_t> words;
    for (uint64_t at = 0; at + 512 <= size;) {
      words.resize(std::min<uint64_t>(random() % 300 + 1, (size - at) / 512) * 64);
      for (uint64_t& word : words) word = random();
      file.seekp(static_cast<std::streamoff>(at));
      file.write(reinterpret_cast<const char*>(words.data()),
                 static_cast<std::streamsize>(words.size() * 8));
      at += words.size() * 8 + random() % 700 * 512;
    }
    file.close();
    std::filesystem::resize_file(path, size);
    return path;
  }
  std::vector<std::string> Files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  static bool HaveQemu() {
    std::string output;
    return disk::RunCommand("qemu-img --version", output) == 0;
  }

  TestFolder folder_;
};

TEST_F(DiskVerbsTest, ConvertsBetweenAllFormats) {
  if (!HaveQemu()) GTEST_SKIP() << "no qemu-img";
  const std::string raw = MakeRaw("source.raw", 5 * kMiB, 1);
  for (const Kind& from : kKinds) {
    const std::string first = folder_ / from.name;
    std::vector<std::string> words = {"convert", raw, first};
    words.insert(words.end(), from.flags.begin(), from.flags.end());
    EXPECT_EQ(RunOk(words), "");
    ExpectSame(from, first, raw);
    RunOk({"check", first});
    for (const Kind& to : kKinds) {
      if (to.name == from.name) continue;
      SCOPED_TRACE(absl::StrCat(from.name, " to ", to.name));
      const std::string second = folder_ / absl::StrCat("second-", to.name);
      words = {"convert", first, second, "--force"};
      words.insert(words.end(), to.flags.begin(), to.flags.end());
      EXPECT_EQ(RunOk(words), "");
      ExpectSame(to, second, raw);
    }
  }
}

TEST_F(DiskVerbsTest, ZerosTakeNoRoom) {
  const std::string raw = folder_ / "a.raw";
  std::ofstream(raw).put('x');
  std::filesystem::resize_file(raw, uint64_t{8} << 30);
  RunOk({"convert", raw, folder_ / "a.vhdx", "--block-size", "1M"});
  RunOk({"convert", raw, folder_ / "a.vhd"});
  EXPECT_LT(std::filesystem::file_size(folder_ / "a.vhdx"), 16 * kMiB);
  EXPECT_LT(std::filesystem::file_size(folder_ / "a.vhd"), 4 * kMiB);
}

TEST_F(DiskVerbsTest, CreatesAndDescribes) {
  RunOk({"create", folder_ / "a.vhdx", "20G", "--sector-size", "4K"});
  const std::string info = RunOk({"info", folder_ / "a.vhdx"});
  EXPECT_THAT(info, HasSubstr("20 GiB (21474836480)"));
  EXPECT_THAT(info, HasSubstr("vhdx"));
  const std::string facts = RunOk({"--json", "info", folder_ / "a.vhdx"});
  const size_t first = facts.find("\"file_bytes\"");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(facts.find("\"file_bytes\"", first + 1), std::string::npos);  // each name once
  RunOk({"create", folder_ / "a.vhd", "2040G"});
  const std::string json = RunOk({"--json", "info", folder_ / "a.vhd"});
  EXPECT_THAT(json, HasSubstr("\"format\": \"vhd1\""));
  EXPECT_THAT(json, HasSubstr("\"size_bytes\": 2190433320960"));
  EXPECT_THAT(json, HasSubstr("\"type\": \"dynamic\""));
}

TEST_F(DiskVerbsTest, ChildrenDifferAndCommit) {
  if (!HaveQemu()) GTEST_SKIP() << "no qemu-img";
  const std::string before = MakeRaw("before.raw", 12 * kMiB, 2);
  const std::string after = folder_ / "after.raw";
  std::filesystem::copy_file(before, after);
  {
    std::fstream file(after, std::ios::binary | std::ios::in | std::ios::out);
    for (int i = 0; i < 9; ++i) {
      file.seekp(i * 1'300'000);
      file << "changed here";
      // Zeros that hide what the parent has.
      file.seekp(i * 1'300'000 + 200'000);
      file << std::string(i * 10'000, '\0');
    }
  }
  for (const Kind& kind : {kKinds[1], kKinds[3]}) {
    const std::string ending = kind.qemu == "vpc" ? ".vhd" : ".vhdx";
    SCOPED_TRACE(ending);
    const std::string base = folder_ / ("base" + ending);
    const std::string child = folder_ / ("child" + ending);
    const std::string grandchild = folder_ / ("grandchild" + ending);
    RunOk({"convert", before, base});
    RunOk({"convert", after, child, "--parent", base});
    RunOk({"create", grandchild, "--parent", child});
    EXPECT_THAT(RunOk({"info", grandchild}), HasSubstr(base));
    // A chain, read as one disk.
    RunOk({"convert", grandchild, folder_ / "flat.raw", "--force"});
    ExpectSame(kKinds[0], folder_ / "flat.raw", after);
    ExpectSame(kind, base, before);
    std::filesystem::remove(grandchild);
    RunOk({"commit", child});
    ExpectSame(kind, base, after);
    RunOk({"convert", child, folder_ / "flat.raw", "--force"});
    ExpectSame(kKinds[0], folder_ / "flat.raw", after);
    RunOk({"commit", child, "--delete"});
    EXPECT_FALSE(std::filesystem::exists(child));
    const Result none = Run({"commit", base});
    EXPECT_EQ(none.status, 1);
    EXPECT_THAT(none.error_output, HasSubstr("FailedPrecondition"));
  }
}

// A copy of a folder's images keeps to its own: not to what the absolute paths in it lead to.
TEST_F(DiskVerbsTest, CommitsToTheParentNextToTheChildOrToNone) {
  for (const std::string ending : {".vhd", ".vhdx"}) {
    SCOPED_TRACE(ending);
    const std::string first = folder_ / ("first" + ending);
    const std::string second = folder_ / ("second" + ending);
    const std::string base = absl::StrCat(first, "/base", ending);
    const std::string child = absl::StrCat(first, "/child", ending);
    const std::string base_copy = absl::StrCat(second, "/base", ending);
    const std::string child_copy = absl::StrCat(second, "/child", ending);
    std::filesystem::create_directory(first);
    RunOk({"create", base, "8M"});
    RunOk({"convert", MakeRaw("some.raw", 8 * kMiB, 8), child, "--parent", base});
    std::filesystem::copy(first, second);
    EXPECT_EQ(RunOk({"commit", child_copy}), absl::StrCat("committed into ", base_copy, "\n"));
    // The base of the second folder becomes another disk.
    RunOk({"create", base_copy, "8M", "--force"});
    const auto before = std::filesystem::last_write_time(base);
    const Result refused = Run({"commit", child_copy});
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.error_output, HasSubstr("FailedPrecondition"));
    EXPECT_THAT(refused.error_output, HasSubstr(base_copy));
    EXPECT_EQ(std::filesystem::last_write_time(base), before);
    EXPECT_EQ(RunOk({"--json", "commit", child}),
              absl::StrCat("{\n  \"committed_into\": \"", base, "\"\n}\n"));
  }
}

TEST_F(DiskVerbsTest, ChecksAndRepairs) {
  const std::string path = folder_ / "a.vhd";
  RunOk({"create", path, "1G"});
  EXPECT_THAT(RunOk({"check", path}), HasSubstr("good, 0 of 512 blocks"));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 512);
  const Result found = Run({"check", path, "--json"});
  EXPECT_EQ(found.status, 6);
  EXPECT_THAT(found.output, HasSubstr("\"sound\": true"));
  EXPECT_THAT(found.output, HasSubstr("\"field\": \"Footer\""));
  EXPECT_THAT(RunOk({"repair", path}), HasSubstr("warning: offset"));
  EXPECT_THAT(RunOk({"check", path}), HasSubstr("good, 0 of 512 blocks"));
  std::ofstream(folder_ / "none.vhd") << "no image";
  EXPECT_EQ(Run({"check", folder_ / "none.vhd", "--format", "vhd1"}).status, 6);
  EXPECT_EQ(Run({"repair", folder_ / "none.vhd", "--format", "vhd1"}).status, 6);
  std::ofstream(folder_ / "none.vhdx") << "no image";
  EXPECT_EQ(Run({"repair", folder_ / "none.vhdx", "--format", "VHDX"}).status, 6);
  EXPECT_EQ(Run({"check", folder_ / "missing.vhd"}).status, 1);
}

TEST_F(DiskVerbsTest, SaysOfARawImageWhatCanBeSaid) {
  const std::string path = folder_ / "a.img";
  RunOk({"create", path, "8M"});
  EXPECT_EQ(RunOk({"check", path}), path + ": good as far as can be told, a raw file of 8 MiB\n");
  EXPECT_THAT(RunOk({"check", path, "--json"}), HasSubstr("\"raw\": \"file\""));
  EXPECT_THAT(RunOk({"repair", path}), HasSubstr(path + ": is raw: there is nothing to repair\n"));
  std::filesystem::resize_file(path, 1000);
  const Result part = Run({"check", path});
  EXPECT_EQ(part.status, 6);
  EXPECT_THAT(part.output, HasSubstr("grow it to 1024 with truncate -s"));
  EXPECT_EQ(Run({"repair", path}).status, 6);
  EXPECT_EQ(std::filesystem::file_size(path), 1000U);
  EXPECT_EQ(Run({"check", folder_ / "none.img"}).status, 1);
}

TEST_F(DiskVerbsTest, ResizesWithoutCuttingDataOff) {
  if (!HaveQemu()) GTEST_SKIP() << "no qemu-img";
  const std::string raw = MakeRaw("source.raw", 12 * kMiB, 3);
  const std::string larger = folder_ / "larger.raw";
  std::filesystem::copy_file(raw, larger);
  std::filesystem::resize_file(larger, 40 * kMiB);
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    const std::string path = folder_ / kind.name;
    std::vector<std::string> words = {"convert", raw, path};
    words.insert(words.end(), kind.flags.begin(), kind.flags.end());
    RunOk(words);
    RunOk({"resize", path, "40M"});
    ExpectSame(kind, path, larger);
    RunOk({"resize", path, "12M"});
    ExpectSame(kind, path, raw);
    const Result refused = Run({"resize", path, "4M"});
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.error_output, HasSubstr("FailedPrecondition"));
    RunOk({"resize", path, "4M", "--shrink"});
    EXPECT_THAT(RunOk({"info", path}), HasSubstr("4 MiB (4194304)"));
    std::string output;
    if (kind.qemu != "vpc" || disk::RunCommand("vhdiinfo -V", output) != 0) continue;
    EXPECT_EQ(disk::RunCommand("vhdiinfo " + path, output), 0);
    EXPECT_THAT(output, HasSubstr("4.0 MiB (4194304 bytes)"));
  }
}

// Reading them would take minutes.
TEST_F(DiskVerbsTest, ShrinksTerabytesOfHoles) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    const std::string path = folder_ / kind.name;
    std::vector<std::string> words = {"create", path, "1T"};
    words.insert(words.end(), kind.flags.begin(), kind.flags.end());
    RunOk(words);
    RunOk({"resize", path, "1G"});
    EXPECT_THAT(RunOk({"info", path}), HasSubstr("1 GiB (1073741824)"));
    std::filesystem::remove(path);
  }
}

TEST_F(DiskVerbsTest, DoesNotReplaceWithoutForce) {
  const std::string path = folder_ / "a.vhd";
  std::ofstream(path) << "precious";
  const Result refused = Run({"create", path, "1G"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.error_output, HasSubstr("AlreadyExists"));
  EXPECT_THAT(refused.error_output, HasSubstr("--force"));
  EXPECT_EQ(std::filesystem::file_size(path), 8U);
  // Nor with it, when what shall replace it can't be made.
  EXPECT_EQ(Run({"create", path, "3000G", "--force"}).status, 2);
  EXPECT_EQ(std::filesystem::file_size(path), 8U);
  RunOk({"create", path, "1G", "--force"});
  EXPECT_EQ(Files(), std::vector<std::string>{"a.vhd"});
}

TEST_F(DiskVerbsTest, TellsWhatIsWrongWithTheCommandLine) {
  EXPECT_EQ(Run({"create", folder_ / "a.vhdx", "20"}).status, 2);
  EXPECT_EQ(Run({"create", folder_ / "a.vhdx"}).status, 2);
  EXPECT_EQ(Run({"create", folder_ / "a.image", "1G"}).status, 2);
  EXPECT_EQ(Run({"create", folder_ / "a.vhd", "1G", "--type", "differencing"}).status, 2);
  EXPECT_EQ(Run({"convert", "a.raw"}).status, 2);
  EXPECT_EQ(Run({}).status, 2);
  EXPECT_TRUE(Files().empty());
  // Behind -- there are words, whatever they look like.
  const Result word = Run({"create", folder_ / "a.vhdx", "--", "-5"});
  EXPECT_EQ(word.status, 2);
  EXPECT_THAT(word.error_output, HasSubstr("\"-5\" is not a size"));
  EXPECT_THAT(Run({"create", "--nope", folder_ / "a.vhdx", "5M"}).error_output,
              HasSubstr("unknown option: --nope"));
  EXPECT_TRUE(Files().empty());
}

TEST_F(DiskVerbsTest, NamesTheFlagWhoseValueTheFormatRefuses) {
  RunOk({"create", folder_ / "base.vhdx", "64M"});
  RunOk({"create", folder_ / "base.vhd", "64M"});
  struct Case {
    const char* name;
    std::vector<std::string> flags;
    const char* flag;
  };
  const std::vector<Case> cases = {
      {"a.vhdx", {"65T"}, "SIZE: "},
      {"a.vhdx", {"1G", "--block-size", "3M"}, "--block-size: "},
      {"a.vhdx", {"1G", "--sector-size", "1K"}, "--sector-size: "},
      {"a.vhd", {"3T"}, "SIZE: "},
      {"a.vhd", {"1G", "--block-size", "3M"}, "--block-size: "},
      {"a.vhd", {"1G", "--sector-size", "4K"}, "--sector-size: "},
      {"a.raw", {"1G", "--block-size", "1M"}, "--block-size: "},
      {"a.vhdx", {"--parent", folder_ / "base.vhdx", "--sector-size", "4K"}, "--sector-size: "},
      {"a.vhdx", {"--parent", folder_ / "base.vhd"}, "--parent: "},
      {"a.vhd", {"--parent", folder_ / "base.vhdx"}, "--parent: "},
      {"a.raw", {"--parent", folder_ / "base.vhdx"}, "--parent: "},
  };
  for (const Case& wrong : cases) {
    std::vector<std::string> words = {"create", folder_ / wrong.name};
    words.insert(words.end(), wrong.flags.begin(), wrong.flags.end());
    const Result refused = Run(words);
    EXPECT_EQ(refused.status, 2) << refused.error_output;
    EXPECT_THAT(refused.error_output, HasSubstr(std::string("InvalidArgument: ") + wrong.flag));
  }
  const Result smaller =
      Run({"convert", folder_ / "base.vhdx", folder_ / "a.vhd", "--size", "32M"});
  EXPECT_EQ(smaller.status, 2);
  EXPECT_THAT(smaller.error_output, HasSubstr("InvalidArgument: --size: 33554432 bytes is less"));
  EXPECT_EQ(Run({"resize", folder_ / "base.vhd", "3T"}).status, 2);
  EXPECT_THAT(Files(), ::testing::UnorderedElementsAre("base.vhdx", "base.vhd"));
}

// A child's size is its own: past a smaller parent there are zeros, and of a larger one it shows
// the beginning.
TEST_F(DiskVerbsTest, AChildMayBeOfAnotherSizeThanItsParent) {
  const std::string raw = MakeRaw("source.raw", 5 * kMiB, 7);
  RunOk({"convert", raw, folder_ / "base.vhdx", "--block-size", "1M"});
  for (const uint64_t size : {3 * kMiB + 512, 9 * kMiB + 512}) {
    const std::string child = folder_ / absl::StrCat("child-", size, ".vhdx");
    RunOk({"create", child, absl::StrCat(size, "B"), "--parent", folder_ / "base.vhdx"});
    RunOk({"check", child});
    const std::string flat = folder_ / absl::StrCat("flat-", size, ".raw");
    RunOk({"convert", child, flat});
    std::filesystem::copy_file(raw, folder_ / "expected.raw",
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder_ / "expected.raw", size);
    std::string output;
    EXPECT_EQ(disk::RunCommand(absl::StrCat("cmp ", flat, " ", folder_ / "expected.raw"), output),
              0)
        << output;
  }
}

TEST_F(DiskVerbsTest, ConvertsToLargerSectors) {
  const uint64_t size = 9 * kMiB + 3 * 512;
  const std::string raw = MakeRaw("source.raw", size, 13);
  const std::string path = folder_ / "a.vhdx";
  const Result refused = Run({"convert", raw, path, "--sector-size", "4K"});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.error_output, HasSubstr("--sector-size: the 9438720 bytes of "));
  EXPECT_THAT(refused.error_output, HasSubstr("a size of 9441280 bytes or more"));
  EXPECT_THAT(refused.error_output, Not(HasSubstr("--size")));
  RunOk({"convert", raw, path, "--sector-size", "4K", "--size", "9441280B"});
  EXPECT_EQ(RunOk({"check", path}).find("nothing refers to"), std::string::npos);
  RunOk({"convert", path, folder_ / "flat.raw"});
  std::filesystem::resize_file(raw, 9441280);
  std::string output;
  EXPECT_EQ(disk::RunCommand(absl::StrCat("cmp ", folder_ / "flat.raw", " ", raw), output), 0)
      << output;
  // Another size that can't be.
  std::filesystem::resize_file(raw, uint64_t{3} << 40);
  const Result large = Run({"convert", raw, folder_ / "a.vhd"});
  EXPECT_EQ(large.status, 1);
  EXPECT_THAT(large.error_output, HasSubstr("source.raw: its size doesn't fit: "));
}

TEST_F(DiskVerbsTest, ConvertingToALargerChildShowsNothingOfTheParent) {
  const std::string base = MakeRaw("base.raw", 12 * kMiB, 14);
  const std::string raw = MakeRaw("source.raw", 4 * kMiB, 15);
  for (const char* name : {"base.vhd", "base.vhdx"}) {
    RunOk({"convert", base, folder_ / name});
    const std::string child = folder_ / (std::string("child-") + name);
    RunOk({"convert", raw, child, "--parent", folder_ / name, "--size", "20M"});
    RunOk({"convert", child, folder_ / "flat.raw", "--force"});
    std::filesystem::resize_file(raw, 20 * kMiB);
    std::string output;
    EXPECT_EQ(disk::RunCommand(absl::StrCat("cmp ", folder_ / "flat.raw", " ", raw), output), 0)
        << output;
    std::filesystem::resize_file(raw, 4 * kMiB);
  }
}

TEST_F(DiskVerbsTest, NothingReplacesWhatItNeeds) {
  for (const std::string ending : {".vhd", ".vhdx"}) {
    SCOPED_TRACE(ending);
    const std::string base = folder_ / ("base" + ending);
    const std::string child = folder_ / ("child" + ending);
    const std::string other_name = folder_ / ("other" + ending);
    RunOk({"create", base, "8M"});
    RunOk({"create", child, "--parent", base});
    std::filesystem::create_hard_link(base, other_name);
    const auto before = std::filesystem::last_write_time(base);
    const std::vector<std::vector<std::string>> wrong = {
        {"create", base, "--parent", base, "--force"},
        {"create", base, "--parent", child, "--force"},
        {"create", other_name, "--parent", child, "--force"},
        {"convert", base, base, "--force"},
        {"convert", base, other_name, "--force"},
        {"convert", child, base, "--force"},
        {"convert", base, base, "--parent", base, "--force"}};
    for (const std::vector<std::string>& words : wrong) {
      const Result refused = Run(words);
      EXPECT_NE(refused.status, 0);
      EXPECT_THAT(refused.error_output, HasSubstr("InvalidArgument"));
      if (words[0] == "create") {
        EXPECT_THAT(refused.error_output, HasSubstr("--parent: "));
      }
    }
    EXPECT_EQ(std::filesystem::last_write_time(base), before);
    RunOk({"check", base});
  }
}

TEST_F(DiskVerbsTest, CommitGrowsAParentThatIsTooSmall) {
  if (!HaveQemu()) GTEST_SKIP() << "no qemu-img";
  const std::string raw = MakeRaw("source.raw", 40 * kMiB, 9);
  for (const Kind& kind : kKinds) {
    if (kind.qemu == "raw") continue;
    SCOPED_TRACE(kind.name);
    const std::string base = folder_ / kind.name;
    const std::string child = folder_ / ("child-" + kind.name);
    std::vector<std::string> words = {"create", base, "5M"};
    words.insert(words.end(), kind.flags.begin(), kind.flags.end());
    RunOk(words);
    RunOk({"convert", raw, child, "--parent", base});
    RunOk({"commit", child});
    RunOk({"check", base});
    ExpectSame(kind, base, raw);
    RunOk({"convert", child, folder_ / "flat.raw", "--force"});
    ExpectSame(kKinds[0], folder_ / "flat.raw", raw);
    // What its own parent has past its end doesn't come to light.
    const std::string middle = folder_ / ("middle-" + kind.name);
    const std::string top = folder_ / ("top-" + kind.name);
    RunOk({"create", middle, "5000K", "--parent", base});
    RunOk({"create", top, "8M", "--parent", middle});
    RunOk({"commit", top});
    std::filesystem::copy_file(raw, folder_ / "expected.raw",
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder_ / "expected.raw", 5000 * 1024);
    std::filesystem::resize_file(folder_ / "expected.raw", 8 * kMiB);
    for (const std::string& path : {middle, top}) {
      RunOk({"check", path});
      RunOk({"convert", path, folder_ / "flat.raw", "--force"});
      ExpectSame(kKinds[0], folder_ / "flat.raw", folder_ / "expected.raw");
    }
  }
}

// Not what the parent has there, nor what was cut off.
TEST_F(DiskVerbsTest, WhatAChildGainsReadsAsZero) {
  const std::string raw = MakeRaw("source.raw", 12 * kMiB, 11);
  const std::string expected = folder_ / "expected.raw";
  std::filesystem::copy_file(raw, expected);
  std::filesystem::resize_file(expected, 3000 * 1024);
  std::filesystem::resize_file(expected, 20 * kMiB);
  for (const Kind& kind : kKinds) {
    if (kind.qemu == "raw") continue;
    SCOPED_TRACE(kind.name);
    const std::string base = folder_ / kind.name;
    const std::string child = folder_ / ("child-" + kind.name);
    std::vector<std::string> words = {"convert", raw, base};
    words.insert(words.end(), kind.flags.begin(), kind.flags.end());
    RunOk(words);
    RunOk({"create", child, "--parent", base});
    RunOk({"resize", child, "3000K", "--shrink"});
    RunOk({"resize", child, "20M"});
    RunOk({"check", child});
    RunOk({"convert", child, folder_ / "flat.raw", "--force"});
    std::string output;
    EXPECT_EQ(disk::RunCommand(absl::StrCat("cmp ", folder_ / "flat.raw", " ", expected), output),
              0)
        << output;
    std::filesystem::remove(base);
    const Result refused = Run({"resize", child, "30M"});
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.error_output, HasSubstr("NotFound"));
  }
}

TEST_F(DiskVerbsTest, DoesNotReplaceAnImageInUse) {
  const std::string path = folder_ / "a.vhdx";
  RunOk({"create", path, "8M"});
  RunOk({"create", folder_ / "b.raw", "8M"});
  const UniqueFd used(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(used.get(), F_OFD_SETLK, &lock), 0);
  const auto before = std::filesystem::last_write_time(path);
  const std::vector<std::vector<std::string>> replacing = {
      {"create", path, "8M", "--force"}, {"convert", folder_ / "b.raw", path, "--force"}};
  for (const std::vector<std::string>& words : replacing) {
    const Result refused = Run(words);
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.error_output, HasSubstr("FailedPrecondition"));
    EXPECT_THAT(refused.error_output, HasSubstr(absl::StrCat("pid ", ::getpid())));
  }
  EXPECT_EQ(std::filesystem::last_write_time(path), before);
}

TEST_F(DiskVerbsTest, KeepsTheModeOfWhatItReplaces) {
  const auto mode = [](const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  };
  const std::string path = folder_ / "a.vhdx";
  const std::string link = folder_ / "link.vhdx";
  RunOk({"create", path, "8M"});
  ASSERT_EQ(::chmod(path.c_str(), 0660), 0);
  std::filesystem::create_symlink("a.vhdx", link);
  RunOk({"create", link, "9M", "--force"});
  EXPECT_EQ(std::filesystem::read_symlink(link), "a.vhdx");
  EXPECT_EQ(mode(path), 0660U);
  EXPECT_THAT(RunOk({"info", path}), HasSubstr("9 MiB"));
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  RunOk({"convert", path, folder_ / "copy.vhd"});
  EXPECT_EQ(mode(folder_ / "copy.vhd"), 0600U);
  // As for the parents, whose contents are in it, too.
  RunOk({"create", folder_ / "child.vhdx", "--parent", path});
  RunOk({"convert", folder_ / "child.vhdx", folder_ / "flat.raw"});
  EXPECT_EQ(mode(folder_ / "flat.raw"), 0600U);
}

TEST_F(DiskVerbsTest, ListsThePathsOfAParentAsTheImageSpellsThem) {
  RunOk({"create", folder_ / "base, the first.vhd", "8M"});
  RunOk({"create", folder_ / "child.vhd", "--parent", folder_ / "base, the first.vhd"});
  const std::string json = RunOk({"info", folder_ / "child.vhd", "--json"});
  EXPECT_THAT(json, HasSubstr(R"("parent_paths": [".\\base, the first.vhd", ")"));
  EXPECT_THAT(json, HasSubstr(R"(\\base, the first.vhd"],)"));
}

// What a link leads to is made, and that is found from its own folder.
TEST_F(DiskVerbsTest, AChildMadeThroughALinkNamesItsParentFromWhereItLies) {
  for (const std::string ending : {".vhd", ".vhdx"}) {
    SCOPED_TRACE(ending);
    const std::string store = folder_ / ("store" + ending);
    const std::string base = absl::StrCat(store, "/images/base", ending);
    const std::string child = absl::StrCat(store, "/images/child", ending);
    const std::string link = absl::StrCat(store, "/link", ending);
    std::filesystem::create_directories(absl::StrCat(store, "/images"));
    RunOk({"create", base, "8M"});
    RunOk({"create", child, "8M"});
    std::filesystem::create_symlink(absl::StrCat("images/child", ending), link);
    RunOk({"create", link, "--parent", base, "--force"});
    EXPECT_TRUE(std::filesystem::is_symlink(link));
    // Without what the absolute path leads to.
    const std::string moved = folder_ / ("moved" + ending);
    std::filesystem::rename(store, moved);
    const std::string moved_base = absl::StrCat(moved, "/images/base", ending);
    EXPECT_THAT(RunOk({"info", absl::StrCat(moved, "/images/child", ending)}),
                HasSubstr(moved_base));
    // Nor does another file there count for whoever opens the link.
    RunOk({"create", absl::StrCat(moved, "/base", ending), "8M"});
    EXPECT_THAT(RunOk({"info", absl::StrCat(moved, "/link", ending)}), HasSubstr(moved_base));
  }
}

// So does one made through a folder that is a link.
TEST_F(DiskVerbsTest, AChildMadeThroughALinkedFolderNamesItsParentFromWhereItLies) {
  for (const std::string ending : {".vhd", ".vhdx"}) {
    SCOPED_TRACE(ending);
    const std::string store = folder_ / ("tree" + ending);
    std::filesystem::create_directories(store + "/real");
    std::filesystem::create_directories(store + "/other");
    std::filesystem::create_directory_symlink("../real", store + "/other/link");
    RunOk({"create", absl::StrCat(store, "/real/base", ending), "8M"});
    RunOk({"create", absl::StrCat(store, "/other/link/child", ending), "--parent",
           absl::StrCat(store, "/real/base", ending)});
    const std::string moved = folder_ / ("moved-tree" + ending);
    std::filesystem::rename(store, moved);
    EXPECT_THAT(RunOk({"info", absl::StrCat(moved, "/real/child", ending)}),
                HasSubstr(absl::StrCat(moved, "/real/base", ending)));
  }
}

TEST_F(DiskVerbsTest, CommittingThroughALinkDeletesWhatItLeadsToToo) {
  const std::string child = folder_ / "child.vhdx";
  const std::string link = folder_ / "link.vhdx";
  RunOk({"create", folder_ / "base.vhdx", "8M"});
  RunOk({"create", child, "--parent", folder_ / "base.vhdx"});
  std::filesystem::create_symlink("child.vhdx", link);
  RunOk({"commit", link, "--delete"});
  EXPECT_FALSE(std::filesystem::exists(child));
  EXPECT_FALSE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "base.vhdx"));
}

TEST_F(DiskVerbsTest, NamesInJsonAreTheFilesOwnAndUtf8) {
  const std::string path = folder_ / "a\"b\n\x01\xC3\xA4\xFF.vhdx";
  RunOk({"create", path, "8M"});
  EXPECT_THAT(RunOk({"info", path, "--json"}),
              HasSubstr("/a\\\"b\\u000a\\u0001\xC3\xA4\\ufffd.vhdx\""));
}

TEST_F(DiskVerbsTest, TellsFormatsByNameAndContents) {
  std::ofstream(folder_ / "bad.vhdx") << std::string(8192, 'x');
  std::ofstream(folder_ / "bad.vhd") << std::string(8192, 'x');
  for (const auto& [name, format] : {std::pair{"bad.vhdx", "vhdx"}, {"bad.vhd", "vhd1"}}) {
    const Result info = Run({"info", folder_ / name});
    EXPECT_EQ(info.status, 1);
    EXPECT_THAT(info.error_output, HasSubstr("DataLoss"));
    EXPECT_THAT(info.error_output, HasSubstr(absl::StrCat("--format ", format)));
    EXPECT_EQ(Run({"check", folder_ / name}).status, 6);
    EXPECT_THAT(Run({"convert", folder_ / name, folder_ / "b.raw"}).error_output,
                HasSubstr("--source-format raw"));
    RunOk({"info", folder_ / name, "--format", "RAW"});
  }
  for (const char* const name : {"a", "a.qcow2", "a.img"}) {
    std::ofstream(folder_ / name) << "QFI\xfb" << std::string(8188, 'x');
    const Result refused = Run({"convert", folder_ / name, folder_ / "b.vhdx"});
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.error_output, HasSubstr("InvalidArgument"));
    EXPECT_THAT(refused.error_output, HasSubstr("qcow2"));
    EXPECT_THAT(refused.error_output, HasSubstr("qemu-img convert"));
    RunOk({"convert", folder_ / name, folder_ / "b.vhdx", "--source-format", "raw", "--force"});
  }
  EXPECT_THAT(Run({"info", folder_ / "a.img"}).error_output,
              HasSubstr("a.img: begins as a qcow2 image, which isn't supported; `qemu-img convert` "
                        "makes it one that is; --format raw takes it as it is"));
  RunOk({"info", folder_ / "a.img", "--format", "raw"});
  const Result parent = Run({"create", folder_ / "c.vhdx", "--parent", folder_ / "a.qcow2"});
  EXPECT_EQ(parent.status, 2);
  EXPECT_THAT(parent.error_output, HasSubstr("InvalidArgument: --parent: "));
  // A guest that wrote a header into its raw disk.
  RunOk({"create", folder_ / "c.vhdx", "8M", "--format", "VhdX", "--block-size", "1048576"});
  std::filesystem::rename(folder_ / "c.vhdx", folder_ / "guest.raw");
  EXPECT_THAT(RunOk({"info", folder_ / "guest.raw", "--json"}), HasSubstr("\"format\": \"raw\""));
}

TEST_F(DiskVerbsTest, TellsOfAParentThatCannotBeOpened) {
  for (const std::string ending : {".vhd", ".vhdx"}) {
    SCOPED_TRACE(ending);
    const std::string base = folder_ / ("base" + ending);
    const std::string middle = folder_ / ("middle" + ending);
    const std::string child = folder_ / ("child" + ending);
    RunOk({"create", base, "8M"});
    RunOk({"create", middle, "--parent", base});
    RunOk({"create", child, "--parent", middle});
    EXPECT_THAT(RunOk({"check", child}), HasSubstr("its parent isn't looked at: " + middle));
    EXPECT_THAT(RunOk({"check", child, "--json"}), HasSubstr("\"unchecked_parent\": \"" + middle));
    std::filesystem::remove(base);
    const Result info = Run({"info", child});
    EXPECT_EQ(info.status, 1);
    EXPECT_THAT(info.output, HasSubstr("8 MiB (8388608)"));
    // The file that lacks its parent, and no other.
    EXPECT_THAT(info.error_output, HasSubstr("NotFound: " + middle + ": its parent isn't at"));
    EXPECT_EQ(info.error_output.find(middle), info.error_output.rfind(middle));
    EXPECT_EQ(info.error_output.find(child), std::string::npos);
    const Result json = Run({"info", child, "--json"});
    EXPECT_EQ(json.status, 1);
    EXPECT_THAT(json.output, HasSubstr("\"parent_error\": \"" + middle));
    const Result check = Run({"check", child});
    EXPECT_EQ(check.status, 6);
    EXPECT_THAT(check.output, HasSubstr(middle + ": its parent isn't at"));
    RunOk({"create", base, "8M"});
    EXPECT_EQ(Run({"check", child}).status, 6);
    EXPECT_THAT(Run({"info", child}).error_output, HasSubstr("FailedPrecondition: " + middle));
  }
}

TEST_F(DiskVerbsTest, NamesAFileThatCannotBeWrittenOnce) {
  for (const std::string name : {"a.vhd", "a.vhdx"}) {
    // A file that mustn't grow as one of a full host.
    const std::string path = folder_ / name;
    RunOk({"create", path, "64M"});
    std::string output;
    EXPECT_NE(disk::RunCommand(absl::StrCat("bash -c 'trap \"\" XFSZ; ulimit -f 2; exec ", BOTHYCTL,
                                            " disk resize ", path, " 2000G 2>&1'"),
                               output),
              0);
    EXPECT_THAT(output, HasSubstr("ResourceExhausted: " + path));
    EXPECT_EQ(output.find(path), output.rfind(path)) << output;
    // The parent's, which is what can't grow.
    const std::string raw = MakeRaw("source.raw", 16 * kMiB, 5);
    const std::string child = folder_ / ("child-" + name);
    RunOk({"convert", raw, child, "--parent", path, "--block-size", "1M"});
    const std::string limit = name == "a.vhd" ? "6000" : "30000";  // KiB
    EXPECT_NE(disk::RunCommand(absl::StrCat("bash -c 'trap \"\" XFSZ; ulimit -f ", limit, "; exec ",
                                            BOTHYCTL, " disk commit ", child, " 2>&1'"),
                               output),
              0);
    EXPECT_THAT(output, HasSubstr("ResourceExhausted: " + path + ": "));
    EXPECT_EQ(output.find(path), output.rfind(path)) << output;
  }
}

TEST_F(DiskVerbsTest, SaysHowABlockDeviceIsResized) {
  const std::filesystem::path device = [] {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/dev", error)) {
      if (entry.is_block_file(error)) return entry.path();
    }
    return std::filesystem::path();
  }();
  if (device.empty()) GTEST_SKIP() << "no block device here";
  // It isn't even opened.
  const Result refused = Run({"resize", device.string(), "1G", "--format", "raw"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.error_output, HasSubstr("is a block device"));
  EXPECT_THAT(refused.error_output, HasSubstr("lvextend"));
}

TEST_F(DiskVerbsTest, NamesTheFlagOfAParentWhoseNameCannotBeSpelled) {
  const std::string parent = folder_ / "b\xff.vhdx";
  RunOk({"create", parent, "8M"});
  const Result refused = Run({"create", folder_ / "a.vhdx", "--parent", parent});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.error_output, HasSubstr("InvalidArgument: --parent: "));
}

TEST_F(DiskVerbsTest, AFixedImageTakesNoRoomUntilItIsWritten) {
  for (const char* const name : {"a.vhd", "a.vhdx"}) {
    RunOk({"create", folder_ / name, "64M", "--type", "fixed"});
    RunOk({"resize", folder_ / name, "128M"});
    RunOk({"check", folder_ / name});
    struct stat status {};
    ASSERT_EQ(::stat((folder_ / name).c_str(), &status), 0);
    EXPECT_GE(static_cast<uint64_t>(status.st_size), 128 * kMiB);
    EXPECT_LT(static_cast<uint64_t>(status.st_blocks) * 512, 8 * kMiB);
  }
}

// Interrupted while it writes: nothing is there, not even for a moment under the final name.
class InterruptTest : public DiskVerbsTest, public ::testing::WithParamInterface<int> {};

TEST_P(InterruptTest, LeavesNothing) {
  const std::string raw = MakeRaw("source.raw", 96 * kMiB, 4);
  const std::string path = folder_ / "a.vhdx";
  int interrupted = 0;
  for (int attempt = 0; attempt < 20 && interrupted == 0; ++attempt) {
    Child child({BOTHYCTL, "disk", "convert", raw, path, "--force"}, {});
    // Until the new file, without a name yet, is open and has something in it.
    const std::string descriptors = absl::StrCat("/proc/", child.pid(), "/fd");
    bool begun = false;
    while (!begun && !std::filesystem::exists(path) && std::filesystem::exists(descriptors)) {
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator(descriptors, ignored)) {
        const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
        begun |= target.starts_with(folder_.path()) && target != raw &&
                 std::filesystem::file_size(entry.path(), ignored) > 4 * kMiB;
      }
      if (std::filesystem::is_empty(descriptors, ignored)) break;
    }
    child.Signal(GetParam());
    const int status = child.AwaitEnd();
    if (status == 128 + GetParam()) {
      ++interrupted;
      EXPECT_EQ(Files(), std::vector<std::string>{"source.raw"});
    } else {
      ASSERT_EQ(status, 0);
      RunOk({"check", path});
      std::filesystem::remove(path);
    }
  }
  EXPECT_EQ(interrupted, 1);
}

// Ended while it writes to the parent: the image reads as before and can be committed again.
TEST_P(InterruptTest, LeavesAnImageThatCanBeCommittedAgain) {
  if (!HaveQemu()) GTEST_SKIP() << "no qemu-img";
  const std::string before = MakeRaw("before.raw", 20 * kMiB, 5);
  // Larger, so that the parent grows first.
  const std::string after = MakeRaw("after.raw", 50 * kMiB, 6);
  for (const Kind& kind : {kKinds[1], kKinds[3]}) {
    SCOPED_TRACE(kind.name);
    const std::string base = folder_ / ("base-" + kind.name);
    const std::string child = folder_ / ("child-" + kind.name);
    int interrupted = 0;
    for (int attempt = 0; attempt < 20 && interrupted == 0; ++attempt) {
      RunOk({"convert", before, base, "--force"});
      RunOk({"convert", after, child, "--parent", base, "--force"});
      const auto written = std::filesystem::last_write_time(base);
      Child commit({BOTHYCTL, "disk", "commit", child}, {});
      const std::string descriptors = absl::StrCat("/proc/", commit.pid(), "/fd");
      std::error_code ignored;
      while (std::filesystem::last_write_time(base) == written &&
             !std::filesystem::is_empty(descriptors, ignored) && !ignored) {
      }
      commit.Signal(GetParam());
      const int status = commit.AwaitEnd();
      if (status != 0) {
        EXPECT_EQ(status, 128 + GetParam()) << commit.error_output();
        ++interrupted;
      }
    }
    EXPECT_EQ(interrupted, 1);
    RunOk({"convert", child, folder_ / "flat.raw", "--force"});
    ExpectSame(kKinds[0], folder_ / "flat.raw", after);
    RunOk({"commit", child});
    RunOk({"check", base});
    ExpectSame(kind, base, after);
  }
}

INSTANTIATE_TEST_SUITE_P(Signals, InterruptTest, ::testing::Values(SIGINT, SIGTERM, SIGKILL));

}  // namespace
}  // namespace bothy::bothyctl
