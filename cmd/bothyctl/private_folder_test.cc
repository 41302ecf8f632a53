#include "cmd/bothyctl/private_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "support/testing/test_folder.h"

namespace bothy::bothyctl {
namespace {

TEST(PrivateFolderTest, IsThisUsersAloneAndGoesWithItsFiles) {
  std::string path;
  {
    const auto folder = PrivateFolder::Create();
    ASSERT_TRUE(folder.ok()) << folder.status();
    path = folder->path();
    struct stat status;
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0700U);
    for (int i = 0; i < 300; ++i) std::ofstream(path + "/file-" + std::to_string(i)) << "x";
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(PrivateFolderTest, GoesOnceWhenMoved) {
  auto first = PrivateFolder::Create().value();
  const std::string path = first.path();
  {
    std::optional<PrivateFolder> second(std::move(first));
    EXPECT_EQ(second->path(), path);
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(PrivateFolderTest, LivesInTheRuntimeFolder) {
  const TestFolder runtime;
  const char* const old = std::getenv("XDG_RUNTIME_DIR");
  const std::optional<std::string> before = old ? std::optional<std::string>(old) : std::nullopt;
  ::setenv("XDG_RUNTIME_DIR", runtime.path().c_str(), 1);
  {
    const auto folder = PrivateFolder::Create().value();
    EXPECT_EQ(std::filesystem::path(folder.path()).parent_path(), runtime.path());
  }
  const std::string too_long = runtime.path() + "/" + std::string(70, 'r');
  std::filesystem::create_directory(too_long);
  for (const std::string& unusable : {std::string("/nonexistent"), too_long}) {
    ::setenv("XDG_RUNTIME_DIR", unusable.c_str(), 1);
    const auto folder = PrivateFolder::Create().value();
    EXPECT_EQ(std::filesystem::path(folder.path()).parent_path(), "/tmp");
  }
  if (before) {
    ::setenv("XDG_RUNTIME_DIR", before->c_str(), 1);
  } else {
    ::unsetenv("XDG_RUNTIME_DIR");
  }
}

TEST(RemoveFlatFolderTest, DoesNotFollowLinks) {
  const auto folder = PrivateFolder::Create().value();
  const auto other = PrivateFolder::Create().value();
  std::ofstream(other.path() + "/kept") << "x";
  const std::string link = folder.path() + "/link";
  std::filesystem::create_symlink(other.path(), link);
  RemoveFlatFolder(link.c_str());
  EXPECT_TRUE(std::filesystem::exists(other.path() + "/kept"));
}

}  // namespace
}  // namespace bothy::bothyctl
