#include <memory>

#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "disk/tools/make_image.h"

namespace bothy::bothyctl {
namespace {

using disk::tools::NewImageFile;

constexpr char kExamples[] =
    R"(  bothyctl disk create root.vhdx 20G
      a disk of 20 GiB that takes a few MiB until it is written to
  bothyctl disk create data.vhd 100G --type fixed
      a fixed VHD; its room is taken as it is written all the same
  bothyctl disk create vm1.vhdx --parent base.vhdx
      what vm1 changes of base.vhdx, which stays as it is
  bothyctl disk create big.vhdx 64T --block-size 256M --sector-size 4K
      the largest there is)";

struct Arguments {
  std::string path;
  std::optional<uint64_t> size;
  ImageFlags flags;
};

int CreateDisk(const Arguments& arguments) {
  absl::StatusOr<disk::tools::ImageSpec> spec = SpecOf(arguments.flags, arguments.path);
  if (spec.ok() && !arguments.size.has_value() && arguments.flags.parent.empty()) {
    spec = absl::InvalidArgumentError(
        "SIZE: missing, such as 20G (only with --parent it can be left out, for the parent's "
        "size)");
  }
  if (!spec.ok()) {
    PrintError(ErrorLine("disk create", spec.status()));
    return kExitUsage;
  }
  spec->size_bytes = arguments.size.value_or(0);
  return RunDiskTask({.name = "create"}, [&](DiskTaskContext& context) {
    return disk::tools::CreateImage(
        context.loop, arguments.path, *spec,
        arguments.flags.force ? NewImageFile::Existing::kReplace : NewImageFile::Existing::kRefuse);
  });
}

}  // namespace

void AddDiskCreateVerb(CommandLine& commands, CLI::App* disk) {
  CLI::App* const verb = commands.AddVerb(disk, "create", "Make an empty image", kExamples);
  const auto arguments = std::make_shared<Arguments>();
  AddImagePath(*verb, "path", &arguments->path, "The file to make")->required();
  AddBytes(*verb, "size", &arguments->size,
           "The disk's size: 20G, 512M; without, with --parent: the parent's");
  AddImageFlags(*verb, &arguments->flags);
  commands.OnVerb(verb, [arguments](const Globals&) { return CreateDisk(*arguments); });
}

}  // namespace bothy::bothyctl
