#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/output.h"
#include "cmd/bothyctl/quantities.h"
#include "disk/tools/image_format.h"

namespace bothy::bothyctl {
namespace {

using disk::CheckReport;
using disk::Problem;
using disk::Severity;

constexpr char kCheckExamples[] =
    R"(  bothyctl disk check root.vhdx
      what is wrong with it, and whether repair can put it right; nothing is changed. Of a parent
      only that it can be opened
  bothyctl disk check root.vhdx --json
      the same for a script

Of a raw image it says what it is, and whether it is whole sectors of which the first and the last
can be read. Exit status 0: good, perhaps with notes on room that nothing refers to; 6: something
has to be repaired; 1: it couldn't be checked.)";

constexpr char kRepairExamples[] =
    R"(  bothyctl disk repair root.vhdx
      puts right what `check` calls repairable
  cp --reflink=auto root.vhdx root.bak && bothyctl disk repair root.vhdx
      for an image that can't be replaced

Interrupted, it finishes first. Exit status 0: it is good now; 6: some of it can't be repaired;
1: error.)";

struct Arguments {
  std::string path;
  std::optional<disk::ImageType> format;
};

const char* Word(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "";
}

std::string Text(const std::string& path, const CheckReport& report) {
  std::vector<Row> rows = {{"severity", "offset", "field", "what", "repair"}};
  for (const Problem& problem : report.problems) {
    rows.push_back({Word(problem.severity), absl::StrCat(problem.offset), problem.field,
                    problem.message, problem.repairable ? "yes" : "no"});
  }
  std::string text;
  if (rows.size() > 1) text = Table(rows, /*has_heading=*/true, STDOUT_FILENO);
  if (report.more_problems != 0) absl::StrAppend(&text, "… and ", report.more_problems, " more\n");
  if (!report.raw.empty()) {
    absl::StrAppend(&text, path, ": ", report.sound() ? "good as far as can be told" : "damaged",
                    ", a raw ", report.raw, " of ", FormatBytes(report.file_bytes), "\n");
    return text;
  }
  absl::StrAppend(&text, path, ": ",
                  report.clean()   ? "good"
                  : report.sound() ? report.worst == Severity::kNote ? "good, with notes"
                                                                     : "all data is there, but "
                                                                       "repair it"
                                   : "damaged",
                  ", ", report.blocks_allocated, " of ", report.blocks_total, " blocks of ",
                  FormatBytes(report.block_size_bytes), " in use\n");
  if (!report.parent_path.empty()) {
    absl::StrAppend(&text, path, ": its parent isn't looked at: ", OneLine(report.parent_path),
                    "\n");
  }
  return text;
}

std::string Json(const std::string& path, const CheckReport& report) {
  std::string problems;
  for (const Problem& problem : report.problems) {
    absl::StrAppend(&problems, problems.empty() ? "\n" : ",\n", "    {\"severity\": \"",
                    Word(problem.severity), "\", \"offset\": ", problem.offset,
                    ", \"field\": ", JsonString(problem.field),
                    ", \"message\": ", JsonString(problem.message),
                    ", \"repairable\": ", problem.repairable ? "true" : "false", "}");
  }
  if (!problems.empty()) absl::StrAppend(&problems, "\n  ");
  const std::string parent =
      report.parent_path.empty()
          ? ""
          : absl::StrCat(",\n  \"unchecked_parent\": ", JsonString(report.parent_path));
  const std::string raw =
      report.raw.empty() ? "" : absl::StrCat(",\n  \"raw\": ", JsonString(report.raw));
  return absl::StrCat(
      "{\n  \"path\": ", JsonString(path), ",\n  \"clean\": ", report.clean() ? "true" : "false",
      ",\n  \"sound\": ", report.sound() ? "true" : "false", parent, raw, ",\n  \"problems\": [",
      problems, "],\n  \"more_problems\": ", report.more_problems,
      ",\n  \"blocks_total\": ", report.blocks_total,
      ",\n  \"blocks_allocated\": ", report.blocks_allocated,
      ",\n  \"block_size_bytes\": ", report.block_size_bytes,
      ",\n  \"file_bytes\": ", report.file_bytes,
      ",\n  \"allocated_bytes\": ", report.allocated_bytes,
      ",\n  \"leaked_bytes\": ", report.leaked_bytes, "\n}\n");
}

bool NeedsRepair(const CheckReport& report) {
  return !report.clean() && report.worst > Severity::kNote;
}

// `damaged` becomes true when it fails because the contents aren't what the name says.
Task<absl::Status> Check(DiskTaskContext& context, const Arguments& arguments, bool repair,
                         bool json, CheckReport& report, bool& damaged) {
  absl::StatusOr<disk::ImageType> type =
      co_await FormatOf(context.loop, arguments.path, arguments.format);
  damaged = absl::IsDataLoss(type.status());
  if (!type.ok()) co_return type.status();
  const auto progress = [&context](uint64_t done, uint64_t total) {
    context.progress.Update(done, total);
  };
  if (repair) {
    absl::StatusOr<CheckReport> before =
        co_await disk::tools::RepairImage(context.loop, arguments.path, *type, progress);
    context.progress.Clear();
    if (absl::IsDataLoss(before.status())) {
      // What can't be repaired is told, and so is what is wrong, below.
      PrintError(ErrorLine("disk repair", before.status()));
      before = CheckReport();
    }
    if (!before.ok()) co_return before.status();
    if (*type == disk::ImageType::kRaw && !json &&
        !Print(absl::StrCat(arguments.path, ": is raw: there is nothing to repair\n"))) {
      co_return absl::InternalError("standard output");
    }
    // What was wrong is told; what still is decides.
    for (const Problem& problem : before->problems) {
      if (json) break;
      if (!Print(absl::StrCat(Word(problem.severity), ": offset ", problem.offset, ": ",
                              problem.field, ": ", problem.message, "\n"))) {
        co_return absl::InternalError("standard output");
      }
    }
  }
  absl::StatusOr<CheckReport> now =
      co_await disk::tools::CheckImage(context.loop, arguments.path, *type, progress);
  if (!now.ok()) co_return now.status();
  report = *std::move(now);
  co_return absl::OkStatus();
}

int CheckDisk(const Globals& globals, const Arguments& arguments, bool repair) {
  CheckReport report;
  bool damaged = false;
  const int status =
      RunDiskTask({.name = repair ? "repair" : "check",
                   .on_signal = repair ? OnSignal::kFinish : OnSignal::kDie},
                  [&](DiskTaskContext& context) {
                    return Check(context, arguments, repair, globals.json, report, damaged);
                  });
  if (status == kExitError && damaged && !repair) return kExitProblems;
  if (status != kExitOk) return status;
  if (!Print(globals.json ? Json(arguments.path, report) : Text(arguments.path, report))) {
    return kExitError;
  }
  return NeedsRepair(report) ? kExitProblems : kExitOk;
}

}  // namespace

void AddDiskCheckVerbs(CommandLine& commands, CLI::App* disk) {
  for (const bool repair : {false, true}) {
    CLI::App* const verb =
        commands.AddVerb(disk, repair ? "repair" : "check",
                         repair ? "Put right what is wrong with an image" : "Examine an image",
                         repair ? kRepairExamples : kCheckExamples);
    const auto arguments = std::make_shared<Arguments>();
    AddImagePath(*verb, "path", &arguments->path, "The image")->required();
    AddFormatFlag(*verb, &arguments->format);
    commands.OnVerb(verb, [arguments, repair](const Globals& globals) {
      return CheckDisk(globals, *arguments, repair);
    });
  }
}

}  // namespace bothy::bothyctl
