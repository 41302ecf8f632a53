// States of a VM in words.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

inline std::string StateText(::vmservice::VmState state) {
  switch (state) {
    case ::vmservice::Uninitialized:
      return "no VM";
    case ::vmservice::Paused:
      return "paused";
    case ::vmservice::Running:
      return "running";
    case ::vmservice::Halted:
      return "halted";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

}  // namespace bothy::bothyctl
