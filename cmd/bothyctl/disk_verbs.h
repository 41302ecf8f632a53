// The verbs of `bothyctl disk`, and what their command lines have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "cmd/bothyctl/option_types.h"
#include "disk/open_image.h"
#include "disk/tools/image_format.h"
#include "support/task.h"

namespace bothy::bothyctl {

class CommandLine;

// Each adds its verb under `disk`.
void AddDiskCreateVerb(CommandLine& commands, CLI::App* disk);
void AddDiskInfoVerb(CommandLine& commands, CLI::App* disk);
void AddDiskCheckVerbs(CommandLine& commands, CLI::App* disk);  // check, repair
void AddDiskConvertVerb(CommandLine& commands, CLI::App* disk);
void AddDiskResizeVerb(CommandLine& commands, CLI::App* disk);
void AddDiskCommitVerb(CommandLine& commands, CLI::App* disk);

// What a new image shall be like, as far as flags say so.
struct ImageFlags {
  std::optional<disk::ImageType> format;
  std::optional<disk::tools::Variant> type;
  std::optional<uint64_t> block_bytes;
  std::optional<uint64_t> sector_bytes;
  std::string parent;
  bool force = false;
};
void AddImageFlags(CLI::App& verb, ImageFlags* flags);
// The flags with what the path's ending says of the format.
absl::StatusOr<disk::tools::ImageSpec> SpecOf(const ImageFlags& flags, const std::string& path);

// The words for formats; VHD1 has two.
const Choices<disk::ImageType>& ImageFormats();
// What a format is guessed by, for the help of a flag that says it.
extern const char kGuessedFormat[];
// --format of an image that is there.
void AddFormatFlag(CLI::App& verb, std::optional<disk::ImageType>* format);
// What the flag says, else what its name and its contents say (DetectImageType). `flag_name` is for
// messages.
Task<absl::StatusOr<disk::ImageType>> FormatOf(IoLoop& loop, const std::string& path,
                                               std::optional<disk::ImageType> flag,
                                               std::string flag_name = "--format");

// A size in bytes (ParseBytes).
CLI::Option* AddBytes(CLI::App& verb, const std::string& name, std::optional<uint64_t>* value,
                      const std::string& description);
CLI::Option* AddImagePath(CLI::App& verb, const std::string& name, std::string* path,
                          const std::string& description);

}  // namespace bothy::bothyctl
