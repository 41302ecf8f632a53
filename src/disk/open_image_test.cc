#include "disk/open_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "disk/host_storage.h"
#include "disk/vhd1/vhd1.h"
#include "disk/vhdx/vhdx.h"
#include "support/testing/test_folder.h"

namespace bothy::disk {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 16 << 20;

class OpenImageTest : public ::testing::Test {
 protected:
  template <typename T>
  T RunTask(Task<T> task) {
    std::optional<T> result;
    Start(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
    loop_->RunUntil([&result] { return result.has_value(); });
    return *std::move(result);
  }
  [[nodiscard]] std::string Path(const std::string& name) const {
    return folder_.path() + "/" + name;
  }
  absl::StatusOr<std::unique_ptr<Disk>> Open(const std::string& path, ImageType type,
                                             bool read_only = false) {
    OpenImageOptions options;
    options.read_only = read_only;
    return RunTask(OpenImage(*loop_, path, type, options));
  }
  std::unique_ptr<Storage> NewFile(const std::string& path) {
    auto storage = RunTask(CreateHostStorage(*loop_, path));
    EXPECT_TRUE(storage.ok()) << storage.status();
    return *std::move(storage);
  }
  void CreateVhdx(const std::string& path, const std::string& relative_parent = "") {
    vhdx::CreateOptions options;
    options.size_bytes = kSize;
    options.block_size_bytes = 1 << 20;
    if (!relative_parent.empty()) {
      const auto parent =
          Open((std::filesystem::path(path).parent_path() / relative_parent).string(),
               ImageType::kVhdx, true);
      ASSERT_TRUE(parent.ok()) << parent.status();
      options.type = vhdx::Type::kDifferencing;
      options.disk_id = (*parent)->identity().value();
      options.parent.relative_path = relative_parent;
      options.parent.linkage = (*parent)->linkage().value();
      ASSERT_TRUE(RunTask((*parent)->Close()).ok());
    }
    const auto storage = NewFile(path);
    const absl::Status status = RunTask(vhdx::Create(*storage, options));
    ASSERT_TRUE(status.ok()) << status;
  }
  void Fill(const std::string& path, ImageType type, uint64_t offset, uint8_t value) {
    auto disk = Open(path, type);
    ASSERT_TRUE(disk.ok()) << disk.status();
    const std::vector<uint8_t> bytes(4096, value);
    EXPECT_TRUE(RunTask(WriteAt(**disk, offset, std::span<const uint8_t>(bytes))).ok());
    EXPECT_TRUE(RunTask((*disk)->Close()).ok());
  }
  uint8_t ByteAt(Disk& disk, uint64_t offset) {
    std::vector<uint8_t> bytes(512);
    EXPECT_TRUE(RunTask(ReadAt(disk, offset, std::span<uint8_t>(bytes))).ok());
    return bytes[0];
  }

  TestFolder folder_;
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
};

TEST_F(OpenImageTest, OpensAChainOfImages) {
  std::filesystem::create_directory(Path("children"));
  CreateVhdx(Path("base.vhdx"));
  Fill(Path("base.vhdx"), ImageType::kVhdx, 0, 1);
  Fill(Path("base.vhdx"), ImageType::kVhdx, 1 << 20, 1);
  CreateVhdx(Path("children/a.vhdx"), "../base.vhdx");
  Fill(Path("children/a.vhdx"), ImageType::kVhdx, 0, 2);
  CreateVhdx(Path("children/b.vhdx"), "a.vhdx");
  auto disk = Open(Path("children/b.vhdx"), ImageType::kVhdx);
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(ByteAt(**disk, 0), 2);
  EXPECT_EQ(ByteAt(**disk, 1 << 20), 1);
  ASSERT_NE((*disk)->parent(), nullptr);
  EXPECT_TRUE((*disk)->parent()->geometry().read_only);
  ASSERT_NE((*disk)->parent()->parent(), nullptr);
  // All of it is in use, and a second child of the same parent is welcome.
  EXPECT_TRUE(absl::IsFailedPrecondition(Open(Path("base.vhdx"), ImageType::kVhdx).status()));
  CreateVhdx(Path("children/c.vhdx"), "a.vhdx");
  auto sibling = Open(Path("children/c.vhdx"), ImageType::kVhdx);
  ASSERT_TRUE(sibling.ok()) << sibling.status();
  EXPECT_TRUE(RunTask((*sibling)->Close()).ok());
  EXPECT_TRUE(RunTask((*disk)->Close()).ok());
}

TEST_F(OpenImageTest, SaysWhereAMissingParentWasLookedFor) {
  CreateVhdx(Path("base.vhdx"));
  CreateVhdx(Path("a.vhdx"), "base.vhdx");
  std::filesystem::remove(Path("base.vhdx"));
  const absl::Status status = Open(Path("a.vhdx"), ImageType::kVhdx).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("a.vhdx")));
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("base.vhdx")));
}

TEST_F(OpenImageTest, TheFirstPathWithAFileDecidesOnTheParent) {
  std::filesystem::create_directory(Path("here"));
  CreateVhdx(Path("here/base.vhdx"));
  CreateVhdx(Path("here/child.vhdx"), "base.vhdx");
  std::filesystem::copy(Path("here"), Path("there"));
  auto storage = RunTask(OpenHostStorage(*loop_, {.path = Path("there/child.vhdx")}));
  ASSERT_TRUE(storage.ok()) << storage.status();
  vhdx::LinkageUpdate update;
  update.absolute_path = Path("here/base.vhdx");
  ASSERT_TRUE(RunTask(vhdx::SetParentLinkage(**storage, update)).ok());
  storage->reset();
  Fill(Path("there/base.vhdx"), ImageType::kVhdx, 0, 1);
  const absl::Status status = Open(Path("there/child.vhdx"), ImageType::kVhdx).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("there/base.vhdx")));
  // Nothing there: the next one.
  std::filesystem::remove(Path("there/base.vhdx"));
  auto disk = Open(Path("there/child.vhdx"), ImageType::kVhdx);
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ((*disk)->parent()->path(), Path("here/base.vhdx"));
  EXPECT_TRUE(RunTask((*disk)->Close()).ok());
}

TEST_F(OpenImageTest, EndsAtAChainThatGoesInACircle) {
  CreateVhdx(Path("base.vhdx"));
  CreateVhdx(Path("a.vhdx"), "base.vhdx");
  CreateVhdx(Path("b.vhdx"), "a.vhdx");
  std::filesystem::remove(Path("base.vhdx"));
  std::filesystem::rename(Path("b.vhdx"), Path("base.vhdx"));
  const absl::Status status = Open(Path("a.vhdx"), ImageType::kVhdx, true).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("256"));
  // The names of all files on the way would be as many.
  EXPECT_LT(status.message().size(), folder_.path().size() + 200);
}

TEST_F(OpenImageTest, KnowsImagesByTheirContents) {
  CreateVhdx(Path("one"));
  {
    const auto storage = NewFile(Path("two"));
    vhd1::CreateOptions options;
    options.size_bytes = kSize;
    ASSERT_TRUE(RunTask(vhd1::Create(*storage, options)).ok());
  }
  std::ofstream(Path("three")) << std::string(65536, 'x');
  std::ofstream(Path("short")) << "x";
  EXPECT_EQ(*RunTask(DetectImageType(*loop_, Path("one"))), ImageType::kVhdx);
  EXPECT_EQ(*RunTask(DetectImageType(*loop_, Path("two"))), ImageType::kVhd1);
  EXPECT_EQ(*RunTask(DetectImageType(*loop_, Path("three"))), ImageType::kRaw);
  EXPECT_EQ(*RunTask(DetectImageType(*loop_, Path("short"))), ImageType::kRaw);
  EXPECT_TRUE(absl::IsNotFound(RunTask(DetectImageType(*loop_, Path("none"))).status()));
  for (const auto& [name, type] : {std::pair{"one", ImageType::kVhdx},
                                   {"two", ImageType::kVhd1},
                                   {"three", ImageType::kRaw}}) {
    auto disk = Open(Path(name), type);
    ASSERT_TRUE(disk.ok()) << disk.status();
    EXPECT_EQ((*disk)->format(), NameOf(type));
    EXPECT_TRUE(RunTask((*disk)->Close()).ok());
  }
}

}  // namespace
}  // namespace bothy::disk
