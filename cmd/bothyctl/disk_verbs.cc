#include "cmd/bothyctl/disk_verbs.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/verbs.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl disk create root.vhdx 20G
      an empty disk that takes room as it is written
  bothyctl disk convert debian.raw root.vhdx
      the same contents in another format
  bothyctl disk check root.vhdx && bothyctl disk info root.vhdx
      whether it is good, and what it is

Formats: raw, vhd1 (VHD files), vhdx. No server is involved. Exit status: 0 done, 1 error,
2 wrong command line, 6 `check` found problems, 128 + n ended by signal n.)";

const Choices<disk::tools::Variant>& Variants() {
  using disk::tools::Variant;
  static const Choices<Variant> variants = {{"fixed", Variant::kFixed},
                                            {"dynamic", Variant::kDynamic},
                                            {"differencing", Variant::kDifferencing}};
  return variants;
}

absl::StatusOr<uint32_t> Fits32(const char* flag, uint64_t value) {
  if (value <= std::numeric_limits<uint32_t>::max()) return static_cast<uint32_t>(value);
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", value, " bytes are too many"));
}

}  // namespace

const Choices<disk::ImageType>& ImageFormats() {
  static const Choices<disk::ImageType> formats = {{"raw", disk::ImageType::kRaw},
                                                   {"vhd", disk::ImageType::kVhd1},
                                                   {"vhd1", disk::ImageType::kVhd1},
                                                   {"vhdx", disk::ImageType::kVhdx}};
  return formats;
}

void AddDiskVerbs(CommandLine& commands) {
  CLI::App* const disk =
      commands.AddVerb(&commands.app(), "disk", "Make and work on disk images", kExamples);
  disk->require_subcommand(1);
  disk->fallthrough();
  AddDiskCreateVerb(commands, disk);
  AddDiskInfoVerb(commands, disk);
  AddDiskCheckVerbs(commands, disk);
  AddDiskConvertVerb(commands, disk);
  AddDiskResizeVerb(commands, disk);
  AddDiskCommitVerb(commands, disk);
}

CLI::Option* AddBytes(CLI::App& verb, const std::string& name, std::optional<uint64_t>* value,
                      const std::string& description) {
  return AddParsed<uint64_t>(verb, name, description, ParseBytes,
                             [value](uint64_t bytes) { *value = bytes; })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->type_name("SIZE");
}

CLI::Option* AddImagePath(CLI::App& verb, const std::string& name, std::string* path,
                          const std::string& description) {
  return verb.add_option(name, *path, description)->type_name("PATH");
}

const char kGuessedFormat[] =
    "raw if it is called .raw or .img or is a block device, else what its contents say; a file "
    "that begins as a qcow2, VMDK, VDI or QED image is refused, and taken as it is with raw";

void AddFormatFlag(CLI::App& verb, std::optional<disk::ImageType>* format) {
  AddChoice(verb, "--format", format, ImageFormats(),
            absl::StrCat("The image's format; without: ", kGuessedFormat));
}

void AddImageFlags(CLI::App& verb, ImageFlags* flags) {
  AddChoice(verb, "--format", &flags->format, ImageFormats(),
            "The new image's format; without: what its name says, .vhdx, .vhd, .raw or .img");
  AddChoice(verb, "--type", &flags->type, Variants(),
            "Whether it takes its room as it is written (dynamic, the default), is laid out flat "
            "(fixed), or holds what differs from a parent (differencing)");
  AddBytes(verb, "--block-size", &flags->block_bytes,
           "What is given room at once: 512K to 256M for vhd1 (default 2M), 1M to 256M for vhdx "
           "(default 32M)");
  AddBytes(verb, "--sector-size", &flags->sector_bytes,
           "Logical sectors, 512 or 4K (vhdx only); default 512 or the parent's");
  AddImagePath(verb, "--parent", &flags->parent, "The image it differs from; of the same format");
  verb.add_flag("--force", flags->force, "Replace a file that is there already");
}

absl::StatusOr<disk::tools::ImageSpec> SpecOf(const ImageFlags& flags, const std::string& path) {
  using disk::tools::Variant;
  disk::tools::ImageSpec spec;
  if (flags.format.has_value()) {
    spec.type = *flags.format;
  } else {
    absl::StatusOr<disk::ImageType> type = disk::tools::TypeOfName(path);
    if (!type.ok()) return WithContext(type.status(), "--format");
    spec.type = *type;
  }
  spec.parent_path = flags.parent;
  spec.variant = flags.type.value_or(!flags.parent.empty()                ? Variant::kDifferencing
                                     : spec.type == disk::ImageType::kRaw ? Variant::kFixed
                                                                          : Variant::kDynamic);
  if ((spec.variant == Variant::kDifferencing) == flags.parent.empty()) {
    return absl::InvalidArgumentError(flags.parent.empty()
                                          ? "--parent: a differencing image needs one"
                                          : "--parent: only a differencing image has one");
  }
  ASSIGN_OR_RETURN(spec.block_size_bytes, Fits32("--block-size", flags.block_bytes.value_or(0)));
  ASSIGN_OR_RETURN(spec.logical_sector_bytes,
                   Fits32("--sector-size", flags.sector_bytes.value_or(0)));
  return spec;
}

Task<absl::StatusOr<disk::ImageType>> FormatOf(IoLoop& loop, const std::string& path,
                                               std::optional<disk::ImageType> flag,
                                               std::string flag_name) {
  if (flag.has_value()) co_return *flag;
  absl::StatusOr<disk::ImageType> type = co_await disk::DetectImageType(loop, path);
  const std::string as_raw = absl::StrCat(flag_name, " raw takes it as it is");
  if (absl::IsDataLoss(type.status())) {
    const std::string name(disk::NameOf(disk::TypeOfEnding(path).value_or(disk::ImageType::kRaw)));
    co_return absl::DataLossError(absl::StrCat(type.status().message(), "; ", flag_name, " ", name,
                                               " opens or repairs it as one, ", as_raw));
  }
  if (absl::IsInvalidArgument(type.status())) {
    co_return absl::InvalidArgumentError(absl::StrCat(type.status().message(), "; ", as_raw));
  }
  co_return type;
}

}  // namespace bothy::bothyctl
