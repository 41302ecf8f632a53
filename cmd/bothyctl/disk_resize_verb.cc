#include <memory>
#include <utility>

#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "disk/tools/image_format.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl disk resize root.vhdx 40G
      a larger disk; partitions and file systems on it are the guest's to grow
  bothyctl disk resize root.vhdx 10G
      a smaller one, if there is nothing but zeros past 10 GiB
  bothyctl disk resize root.vhdx 10G --shrink
      whatever is there

Resize a parent only when its children are to be given up: a VHDX is another disk for them
afterwards (their parent's DataWriteGuid changes). `commit` grows a parent that is too small.
Interrupted while it looks whether there is data to be lost, it changes nothing; later it finishes
first.)";

struct Arguments {
  std::string path;
  std::optional<uint64_t> size;
  std::optional<disk::ImageType> format;
  bool shrink = false;
};

Task<absl::Status> Resize(DiskTaskContext& context, const Arguments& arguments) {
  absl::StatusOr<disk::ImageType> type =
      co_await FormatOf(context.loop, arguments.path, arguments.format);
  if (!type.ok()) co_return type.status();
  const disk::tools::Source source = {.path = arguments.path, .type = *type};
  disk::tools::ResizeSpec spec;
  spec.size_bytes = *arguments.size;
  spec.discard_data = arguments.shrink;
  spec.progress = [&context](uint64_t done, uint64_t total) {
    context.progress.Update(done, total);
  };
  spec.stop = context.stop;
  absl::Status status = co_await disk::tools::ResizeImage(context.loop, source, std::move(spec));
  co_return status;
}

}  // namespace

void AddDiskResizeVerb(CommandLine& commands, CLI::App* disk) {
  CLI::App* const verb = commands.AddVerb(disk, "resize", "Change a disk's size", kExamples);
  const auto arguments = std::make_shared<Arguments>();
  AddImagePath(*verb, "path", &arguments->path, "The image")->required();
  AddBytes(*verb, "size", &arguments->size, "The new size: 40G, 512M")->required();
  AddFormatFlag(*verb, &arguments->format);
  verb->add_flag("--shrink", arguments->shrink, "Cut off what lies past the new size");
  commands.OnVerb(verb, [arguments](const Globals&) {
    return RunDiskTask({.name = "resize", .on_signal = OnSignal::kFinish},
                       [&](DiskTaskContext& context) { return Resize(context, *arguments); });
  });
}

}  // namespace bothy::bothyctl
