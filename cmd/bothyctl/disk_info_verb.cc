#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/disk_task.h"
#include "cmd/bothyctl/disk_verbs.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/output.h"
#include "cmd/bothyctl/quantities.h"
#include "disk/disk.h"
#include "disk/tools/image_format.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl disk info root.vhdx
      its format, size and room in the host's file, and the same of its parents
  bothyctl disk info root.vhdx --json
      the same for a script, sizes in bytes

Of an image whose parent can't be opened it shows what is in the image itself; exit status 1.)";

struct Arguments {
  std::string path;
  std::optional<disk::ImageType> format;
};

using disk::Fact;

// All that is told of one image, in order.
std::vector<Fact> FactsOf(const disk::Disk& image) {
  const disk::Geometry& geometry = image.geometry();
  std::vector<Fact> facts = {{"path", image.path()},
                             {"format", std::string(image.format())},
                             {"size_bytes", geometry.size_bytes}};
  struct stat status {};
  if (::stat(image.path().c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
    facts.push_back({"file_bytes", static_cast<uint64_t>(status.st_size)});
    facts.push_back({"host_bytes", static_cast<uint64_t>(status.st_blocks) * 512});
  }
  facts.push_back({"logical_sector_bytes", uint64_t{geometry.logical_sector_bytes}});
  facts.push_back({"physical_sector_bytes", uint64_t{geometry.physical_sector_bytes}});
  for (const Fact& fact : image.Facts()) facts.push_back(fact);
  return facts;
}

std::string Value(const Fact& fact, bool json) {
  if (const bool* flag = std::get_if<bool>(&fact.value)) {
    return json ? *flag ? "true" : "false" : *flag ? "yes" : "no";
  }
  if (const uint64_t* number = std::get_if<uint64_t>(&fact.value)) {
    const bool size = !json && fact.name.ends_with("_bytes");
    return size ? absl::StrCat(FormatBytes(*number), " (", *number, ")") : absl::StrCat(*number);
  }
  if (const auto* list = std::get_if<std::vector<std::string>>(&fact.value)) {
    if (!json) return absl::StrJoin(*list, ", ");
    const auto quoted = [](std::string* out, const std::string& text) {
      absl::StrAppend(out, JsonString(text));
    };
    return absl::StrCat("[", absl::StrJoin(*list, ", ", quoted), "]");
  }
  const std::string& text = std::get<std::string>(fact.value);
  return json ? JsonString(text) : text;
}

std::string Text(const disk::Disk& top) {
  std::string text;
  for (const disk::Disk* image = &top; image != nullptr; image = image->parent()) {
    std::vector<Row> rows;
    for (const Fact& fact : FactsOf(*image)) {
      std::string name = fact.name;
      if (name.ends_with("_bytes")) name.resize(name.size() - 6);
      rows.push_back({absl::StrReplaceAll(name, {{"_", " "}}), Value(fact, /*json=*/false)});
    }
    absl::StrAppend(&text, text.empty() ? "" : "\nwhich differs from\n\n",
                    Table(rows, /*has_heading=*/false, STDOUT_FILENO));
  }
  return text;
}

// One object an image, the parent within the child.
std::string Json(const disk::Disk& image, const absl::Status& parent,
                 const std::string& indent = "") {
  std::string json = "{";
  for (const Fact& fact : FactsOf(image)) {
    absl::StrAppend(&json, json.size() == 1 ? "\n" : ",\n", indent, "  ", JsonString(fact.name),
                    ": ", Value(fact, /*json=*/true));
  }
  if (image.parent() != nullptr) {
    absl::StrAppend(&json, ",\n", indent,
                    "  \"parent\": ", Json(*image.parent(), parent, indent + "  "));
  }
  if (!parent.ok()) {
    absl::StrAppend(&json, ",\n", indent,
                    "  \"parent_error\": ", JsonString(std::string(parent.message())));
  }
  absl::StrAppend(&json, "\n", indent, "}");
  return json;
}

// Prints what is known of the image even when its parent can't be opened, which then is the error.
Task<absl::Status> Describe(DiskTaskContext& context, const Arguments& arguments, bool json) {
  absl::StatusOr<disk::ImageType> type =
      co_await FormatOf(context.loop, arguments.path, arguments.format);
  if (!type.ok()) co_return type.status();
  const disk::tools::Source source = {.path = arguments.path, .type = *type};
  absl::StatusOr<disk::tools::Look> look = co_await disk::tools::LookAt(context.loop, source);
  if (!look.ok()) co_return look.status();
  const std::string text =
      json ? absl::StrCat(Json(*look->disk, look->parent), "\n") : Text(*look->disk);
  absl::Status status = co_await look->disk->Close();
  if (!Print(text)) co_return absl::InternalError("standard output");
  co_return look->parent.ok() ? status : look->parent;
}

}  // namespace

void AddDiskInfoVerb(CommandLine& commands, CLI::App* disk) {
  CLI::App* const verb = commands.AddVerb(disk, "info", "Show what an image is", kExamples);
  const auto arguments = std::make_shared<Arguments>();
  AddImagePath(*verb, "path", &arguments->path, "The image")->required();
  AddFormatFlag(*verb, &arguments->format);
  commands.OnVerb(verb, [arguments](const Globals& globals) -> int {
    return RunDiskTask({.name = "info"}, [&](DiskTaskContext& context) {
      return Describe(context, *arguments, globals.json);
    });
  });
}

}  // namespace bothy::bothyctl
