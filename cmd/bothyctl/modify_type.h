// The words for ModifyType, which several verbs take.
#pragma once

#include "cmd/bothyctl/option_types.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

inline const Choices<::vmservice::ModifyType>& ModifyTypes() {
  static const auto* const types = new Choices<::vmservice::ModifyType>{
      {"add", ::vmservice::ADD}, {"remove", ::vmservice::REMOVE}, {"update", ::vmservice::UPDATE}};
  return *types;
}

}  // namespace bothy::bothyctl
