#include "machine/config.h"

#include "absl/strings/str_cat.h"

namespace bothy::machine {
namespace {

const char* TypeText(ImageType type) {
  switch (type) {
    case ImageType::kVhd1:
      return "a VHD1";
    case ImageType::kVhdx:
      return "a VHDX";
    case ImageType::kPhysical:
      return "a PHYSICAL disk";
  }
  return "";
}

}  // namespace

absl::Status CheckNamesImage(const ImageConfig& asked, const ImageConfig& there) {
  if (!asked.path.empty() && asked.path != there.path) {
    return absl::InvalidArgumentError(absl::StrCat("host_path: is \"", asked.path,
                                                   "\", but the disk there is \"", there.path,
                                                   "\"; leave it out or name that one"));
  }
  if (asked.type != ImageType::kVhd1 && asked.type != there.type) {
    return absl::InvalidArgumentError(absl::StrCat(
        "type: is ", TypeText(asked.type), ", but the disk there is ", TypeText(there.type)));
  }
  if (asked.read_only && !there.read_only) {
    return absl::InvalidArgumentError("read_only: is set, but the disk there is writable");
  }
  return absl::OkStatus();
}

absl::Status CheckNamesNic(const NicConfig& asked, const NicConfig& there) {
  if (asked.mac.has_value() && asked.mac != there.mac) {
    return absl::InvalidArgumentError(absl::StrCat("mac_address: is ", asked.mac->ToString(),
                                                   ", but that card's is ", there.mac->ToString(),
                                                   "; leave it out or name that one"));
  }
  if (!asked.name.empty() && asked.name != there.name) {
    return absl::InvalidArgumentError(
        absl::StrCat("nic_name: is \"", asked.name, "\", but that card's is \"", there.name, "\""));
  }
  if (asked.backend.has_value() && asked.backend != there.backend) {
    return absl::InvalidArgumentError(
        "nic_id: that card has another backend than the request names; leave the backend out");
  }
  return absl::OkStatus();
}

std::string NicTuningField(const Guid& id, const char* what) {
  return absl::StrCat("extra_data[\"", kNicKeyPrefix, id.ToString(), ".", what, "\"]");
}

absl::Status CheckNicTuning(const NicConfig& nic, const NicTuning& tuning) {
  const bool user = std::holds_alternative<net::UserOptions>(nic.backend->where);
  if (tuning.host_loopback && !user) {
    return absl::InvalidArgumentError(absl::StrCat(NicTuningField(nic.id, "host_loopback"),
                                                   ": is for cards whose backend is user"));
  }
  if (tuning.vhost == NicTuning::Vhost::kOn && user) {
    return absl::FailedPreconditionError(
        absl::StrCat(NicTuningField(nic.id, "vhost"), ": is on, which takes a tap or a switch"));
  }
  return absl::OkStatus();
}

}  // namespace bothy::machine
