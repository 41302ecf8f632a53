#include <unistd.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/output.h"
#include "disk/followed_link.h"
#include "disk/tools/commit_image.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl disk commit vm1.vhdx
      what vm1.vhdx changed of its parent is in the parent afterwards
  bothyctl disk commit vm1.vhdx --delete
      and vm1.vhdx, which nobody needs any more, is gone

A parent that is smaller grows first. Prints which file it wrote to. Interrupted, vm1.vhdx reads as
before and can be committed again. Other images with the same parent are good no longer.)";

struct Arguments {
  std::string path;
  std::optional<disk::ImageType> format;
  bool remove = false;
};

// `into` becomes the file that was written to.
Task<absl::Status> Commit(DiskTaskContext& context, const Arguments& arguments, std::string& into) {
  absl::StatusOr<disk::ImageType> type =
      co_await FormatOf(context.loop, arguments.path, arguments.format);
  if (!type.ok()) co_return type.status();
  const disk::tools::Source source = {.path = arguments.path, .type = *type};
  disk::tools::CopyOptions options;
  options.progress = [&context](uint64_t done, uint64_t total) {
    context.progress.Update(done, total);
  };
  options.stop = context.stop;
  const absl::StatusOr<std::string> image = disk::FollowedLink(arguments.path);
  if (!image.ok()) co_return image.status();
  absl::StatusOr<std::string> parent =
      co_await disk::tools::CommitImage(context.loop, source, options);
  CO_ASSIGN_OR_RETURN(into, parent);
  if (!arguments.remove) co_return absl::OkStatus();
  // Of a link both: it would lead nowhere.
  for (const std::string& name : {*image, arguments.path}) {
    if (::unlink(name.c_str()) != 0 && (errno != ENOENT || name != arguments.path)) {
      co_return ErrnoStatus(errno, absl::StrCat(name, ": delete"));
    }
  }
  co_return absl::OkStatus();
}

std::string Told(const std::string& into, bool json) {
  if (!json) return absl::StrCat("committed into ", OneLine(into), "\n");
  return absl::StrCat("{\n  \"committed_into\": ", JsonString(into), "\n}\n");
}

int CommitDisk(const Globals& globals, const Arguments& arguments) {
  std::string into;
  const int status =
      RunDiskTask({.name = "commit", .on_signal = OnSignal::kStop},
                  [&](DiskTaskContext& context) { return Commit(context, arguments, into); });
  // Also when only deleting the image failed.
  if (!into.empty() && !Print(Told(into, globals.json))) return kExitError;
  return status;
}

}  // namespace

void AddDiskCommitVerb(CommandLine& commands, CLI::App* disk) {
  CLI::App* const verb = commands.AddVerb(
      disk, "commit", "Write what a differencing image holds to its parent", kExamples);
  const auto arguments = std::make_shared<Arguments>();
  AddImagePath(*verb, "path", &arguments->path, "The differencing image")->required();
  AddFormatFlag(*verb, &arguments->format);
  verb->add_flag("--delete", arguments->remove, "Delete the image when its parent is complete");
  commands.OnVerb(verb,
                  [arguments](const Globals& globals) { return CommitDisk(globals, *arguments); });
}

}  // namespace bothy::bothyctl
