#include "cmd/bothyctl/disk_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <utility>

#include "cmd/bothyctl/exit_code.h"
#include "disk/host_storage.h"
#include "disk/tools/image_format.h"
#include "support/testing/test_folder.h"

namespace bothy::bothyctl {
namespace {

// Interrupts itself twice and goes on until it has heard of it.
Task<absl::Status> Interrupted(DiskTaskContext& context, std::string path, bool& finished) {
  std::raise(SIGINT);
  std::raise(SIGTERM);
  while (!context.stop.stop_requested()) {
    // Something that the loop has to turn for.
    disk::HostStorageOptions options;
    options.path = path;
    options.read_only = true;
    absl::StatusOr<std::unique_ptr<disk::Storage>> storage =
        co_await disk::OpenHostStorage(context.loop, std::move(options));
    if (!storage.ok()) co_return storage.status();
  }
  finished = true;
  co_return absl::OkStatus();
}

TEST(DiskTaskTest, FinishesWhatMustNotBeLeftHalfDone) {
  const TestFolder folder;
  const std::string path = folder.WriteText("a", "x");
  bool finished = false;
  ::testing::internal::CaptureStderr();
  const int status =
      RunDiskTask({.name = "resize", .on_signal = OnSignal::kFinish},
                  [&](DiskTaskContext& context) { return Interrupted(context, path, finished); });
  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(status, kExitOk);
  EXPECT_TRUE(finished);
  EXPECT_THAT(told,
              ::testing::HasSubstr("disk resize: interrupted: ends when what has begun is done\n"));
}

TEST(DiskTaskTest, ResizingIsInterruptedBeforeAnythingChanges) {
  const TestFolder folder;
  const std::string path = folder.WriteText("a.img", std::string(4 << 20, '\0'));
  ::testing::internal::CaptureStderr();
  const int status = RunDiskTask(
      {.name = "resize", .on_signal = OnSignal::kFinish},
      [&](DiskTaskContext& context) -> Task<absl::Status> {
        bool heard = false;
        absl::Status interrupted = co_await Interrupted(context, path, heard);
        if (!interrupted.ok()) co_return interrupted;
        const disk::tools::Source source = {.path = path, .type = disk::ImageType::kRaw};
        disk::tools::ResizeSpec spec;
        spec.size_bytes = 512;
        spec.stop = context.stop;
        absl::Status resized =
            co_await disk::tools::ResizeImage(context.loop, source, std::move(spec));
        co_return resized;
      });
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("Cancelled: " + path + ": nothing was changed"));
  EXPECT_THAT(status, ::testing::AnyOf(kExitSignal + SIGINT, kExitSignal + SIGTERM));
  EXPECT_EQ(std::filesystem::file_size(path), 4U << 20);
}

TEST(DiskTaskTest, NamesTheSizeAsTheVerbDoes) {
  for (const std::string name : {"SIZE", "--size"}) {
    ::testing::internal::CaptureStderr();
    const int status = RunDiskTask({.name = "convert", .size_name = name},
                                   [](DiskTaskContext&) -> Task<absl::Status> {
                                     co_return absl::InvalidArgumentError("size_bytes: too small");
                                   });
    EXPECT_EQ(status, kExitUsage);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                ::testing::HasSubstr("InvalidArgument: " + name + ": too small"));
  }
}

}  // namespace
}  // namespace bothy::bothyctl
