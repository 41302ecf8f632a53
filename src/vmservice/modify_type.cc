#include "vmservice/modify_type.h"

#include "absl/strings/str_cat.h"
#include "vmservice/field_checks.h"

namespace bothy::vmservice {

absl::StatusOr<machine::Change> TranslateModifyType(::vmservice::ModifyType type) {
  switch (type) {
    case ::vmservice::ADD:
      return machine::Change::kAdd;
    case ::vmservice::REMOVE:
      return machine::Change::kRemove;
    case ::vmservice::UPDATE:
      return machine::Change::kUpdate;
    default:
      return Invalid("type", absl::StrCat(static_cast<int>(type), " is no ModifyType"));
  }
}

}  // namespace bothy::vmservice
