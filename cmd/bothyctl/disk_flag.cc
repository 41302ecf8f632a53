#include "cmd/bothyctl/disk_flag.h"

#include <charconv>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/host_path.h"
#include "cmd/bothyctl/image_type.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::VMConfig;

constexpr uint32_t kControllers = 4;
constexpr uint32_t kLuns = 64;

absl::Status Malformed(std::string_view text, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text), "\": ", why));
}

absl::Status ParseNumber(std::string_view text, std::string_view word,
                         std::optional<uint32_t>* number) {
  const std::string_view digits = word.substr(word.find('=') + 1);
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return Malformed(text, absl::StrCat("write ", std::string(word.substr(0, word.find('='))),
                                        "=N, with a number"));
  }
  *number = value;
  return absl::OkStatus();
}

bool IsOption(std::string_view word) {
  return word == "ro" || word.starts_with("type=") || word.starts_with("lun=") ||
         word.starts_with("controller=");
}

absl::Status ParseOption(std::string_view text, std::string_view word, DiskFlag* flag) {
  const std::string name(word.substr(0, word.find('=')));
  const bool again = (name == "ro" && flag->read_only) || (name == "type" && flag->type) ||
                     (name == "lun" && flag->lun) || (name == "controller" && flag->controller);
  if (again) return Malformed(text, name + " is there twice");
  if (name == "lun") return ParseNumber(text, word, &flag->lun);
  if (name == "controller") return ParseNumber(text, word, &flag->controller);
  if (name == "ro") {
    flag->read_only = true;
    return absl::OkStatus();
  }
  const auto type = DiskTypes().find(std::string(word.substr(word.find('=') + 1)));
  if (type == DiskTypes().end()) {
    return Malformed(text, "type is one of " + ChoicesType(DiskTypes()));
  }
  flag->type = type->second;
  return absl::OkStatus();
}

using Place = std::pair<uint32_t, uint32_t>;  // controller, LUN

absl::StatusOr<Place> FreePlace(const std::set<Place>& taken, std::optional<uint32_t> controller) {
  const uint32_t first = controller.value_or(0);
  const uint32_t last = controller.value_or(kControllers - 1);
  for (uint32_t c = first; c <= last; ++c) {
    for (uint32_t lun = 0; lun < kLuns; ++lun) {
      if (!taken.contains({c, lun})) return Place(c, lun);
    }
  }
  return absl::ResourceExhaustedError(
      controller ? absl::StrCat("controller ", *controller, " has no free LUN")
                 : "no controller has a free LUN");
}

// `name` is that of the flag.
template <typename Disk>
absl::Status Describe(const DiskFlag& flag, const std::string& name, Disk* disk) {
  const std::string path = AbsolutePath(flag.path);
  disk->set_host_path(path);
  disk->set_read_only(flag.read_only);
  if (flag.type) {
    disk->set_type(*flag.type);
    return absl::OkStatus();
  }
  const absl::StatusOr<::vmservice::DiskType> type = GuessDiskType(path, "type=raw");
  if (!type.ok()) return WithContext(type.status(), absl::StrCat(name, " ", flag.path));
  disk->set_type(*type);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DiskFlag> ParseDiskFlag(std::string_view text) {
  DiskFlag flag;
  std::string_view path = text;
  for (size_t comma = path.rfind(','); comma != std::string_view::npos; comma = path.rfind(',')) {
    const std::string_view word = path.substr(comma + 1);
    if (!IsOption(word)) break;
    RETURN_IF_ERROR(ParseOption(text, word, &flag));
    path = path.substr(0, comma);
  }
  if (path.empty()) return Malformed(text, "the path is empty");
  flag.path = std::string(path);
  return flag;
}

absl::StatusOr<DiskFlag> ParsePmemFlag(std::string_view text) {
  ASSIGN_OR_RETURN(DiskFlag flag, ParseDiskFlag(text));
  if (flag.lun || flag.controller) {
    return Malformed(text, "persistent memory has neither controller nor LUN");
  }
  return flag;
}

absl::Status AddScsiDisks(const std::vector<DiskFlag>& flags, VMConfig* config) {
  if (flags.empty()) return absl::OkStatus();
  auto* const disks = config->mutable_devices_config()->mutable_scsi_disks();
  const auto has_place = [](const DiskFlag& flag) { return flag.lun.has_value(); };
  for (const DiskFlag& flag : flags) {
    if (!has_place(flag)) continue;
    for (int i = disks->size() - 1; i >= 0; --i) {
      if (disks->Get(i).controller() == flag.controller.value_or(0) &&
          disks->Get(i).lun() == *flag.lun) {
        disks->DeleteSubrange(i, 1);
      }
    }
  }
  std::set<Place> taken;
  for (const auto& disk : *disks) taken.emplace(disk.controller(), disk.lun());
  for (const DiskFlag& flag : flags) {
    if (has_place(flag)) taken.emplace(flag.controller.value_or(0), *flag.lun);
  }
  for (const DiskFlag& flag : flags) {
    Place place(flag.controller.value_or(0), flag.lun.value_or(0));
    if (!has_place(flag)) {
      const absl::StatusOr<Place> free = FreePlace(taken, flag.controller);
      if (!free.ok()) return WithContext(free.status(), "--disk " + flag.path);
      place = *free;
      taken.insert(place);
    }
    ::vmservice::SCSIDisk* const disk = disks->Add();
    disk->set_controller(place.first);
    disk->set_lun(place.second);
    RETURN_IF_ERROR(Describe(flag, "--disk", disk));
  }
  return absl::OkStatus();
}

absl::Status AddPmemDisks(const std::vector<DiskFlag>& flags, VMConfig* config) {
  if (flags.empty()) return absl::OkStatus();
  auto* const disks = config->mutable_devices_config()->mutable_vpmem_disks();
  std::set<std::string> paths;
  for (const DiskFlag& flag : flags) paths.insert(AbsolutePath(flag.path));
  for (int i = disks->size() - 1; i >= 0; --i) {
    if (paths.contains(disks->Get(i).host_path())) disks->DeleteSubrange(i, 1);
  }
  for (const DiskFlag& flag : flags) {
    RETURN_IF_ERROR(Describe(flag, "--pmem", disks->Add()));
  }
  return absl::OkStatus();
}

}  // namespace bothy::bothyctl
