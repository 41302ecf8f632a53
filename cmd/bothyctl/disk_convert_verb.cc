#include <memory>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/option_types.h"
#include "disk/tools/make_image.h"

namespace bothy::bothyctl {
namespace {

using disk::tools::NewImageFile;

constexpr char kExamples[] =
    R"(  bothyctl disk convert debian.raw root.vhdx
      what is zero in debian.raw takes no room in root.vhdx
  bothyctl disk convert vm1.vhdx flat.raw
      vm1 with all that it inherits from its parents, in one flat file
  bothyctl disk convert old.vhd new.vhdx --block-size 1M --size 100G
      grown on the way
  bothyctl disk convert changed.raw vm2.vhdx --parent base.vhdx
      only what differs from base.vhdx

Interrupted, it leaves nothing behind; a file that is replaced with --force stays until then.)";

struct Arguments {
  std::string source;
  std::string path;
  std::optional<disk::ImageType> source_format;
  std::optional<uint64_t> size;
  ImageFlags flags;
};

Task<absl::Status> Convert(DiskTaskContext& context, const Arguments& arguments,
                           disk::tools::ImageSpec spec) {
  absl::StatusOr<disk::ImageType> type =
      co_await FormatOf(context.loop, arguments.source, arguments.source_format, "--source-format");
  if (!type.ok()) co_return type.status();
  const disk::tools::Source source = {.path = arguments.source, .type = *type};
  disk::tools::CopyOptions options;
  options.progress = [&context](uint64_t done, uint64_t total) {
    context.progress.Update(done, total);
  };
  options.stop = context.stop;
  absl::Status status = co_await disk::tools::ConvertImage(
      context.loop, source, arguments.path, spec,
      arguments.flags.force ? NewImageFile::Existing::kReplace : NewImageFile::Existing::kRefuse,
      options);
  co_return status;
}

int ConvertDisk(const Arguments& arguments) {
  absl::StatusOr<disk::tools::ImageSpec> spec = SpecOf(arguments.flags, arguments.path);
  if (!spec.ok()) {
    PrintError(ErrorLine("disk convert", spec.status()));
    return kExitUsage;
  }
  spec->size_bytes = arguments.size.value_or(0);
  return RunDiskTask({.name = "convert", .on_signal = OnSignal::kStop, .size_name = "--size"},
                     [&](DiskTaskContext& context) { return Convert(context, arguments, *spec); });
}

}  // namespace

void AddDiskConvertVerb(CommandLine& commands, CLI::App* disk) {
  CLI::App* const verb =
      commands.AddVerb(disk, "convert", "Make an image with the contents of another", kExamples);
  const auto arguments = std::make_shared<Arguments>();
  AddImagePath(*verb, "source", &arguments->source, "The image to read")->required();
  AddImagePath(*verb, "path", &arguments->path, "The file to make")->required();
  AddChoice(*verb, "--source-format", &arguments->source_format, ImageFormats(),
            absl::StrCat("The source's format; without: ", kGuessedFormat));
  AddBytes(*verb, "--size", &arguments->size, "The new disk's size, when it shall be larger");
  AddImageFlags(*verb, &arguments->flags);
  commands.OnVerb(verb, [arguments](const Globals&) { return ConvertDisk(*arguments); });
}

}  // namespace bothy::bothyctl
