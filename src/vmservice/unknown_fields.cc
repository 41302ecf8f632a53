#include "vmservice/unknown_fields.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bothy::vmservice {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

absl::Status Check(const Message& message, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  if (const auto& unknown = reflection.GetUnknownFields(message); !unknown.empty()) {
    const std::string where = path.empty() ? message.GetDescriptor()->name() : path;
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": unknown field ", unknown.field(0).number(),
        "; this server's contract doesn't have it, remove it or use a server that does"));
  }
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name = Join(path, field->name());
    if (!field->is_repeated()) {
      if (absl::Status status = Check(reflection.GetMessage(message, field), name); !status.ok()) {
        return status;
      }
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      absl::Status status =
          Check(reflection.GetRepeatedMessage(message, field, i), absl::StrCat(name, "[", i, "]"));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RefuseUnknownFields(const Message& message) { return Check(message, ""); }

}  // namespace bothy::vmservice
