#include "cmd/bothyctl/json_form.h"

#include <google/protobuf/util/json_util.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/error_text.h"

namespace bothy::bothyctl {
namespace {

// More than any configuration; a device file or an endless pipe shall not eat the memory.
constexpr size_t kMaxFile = 16 << 20;

absl::StatusOr<std::string> ReadAll(std::FILE* file) {
  std::string text;
  char buffer[16 << 10];
  while (const size_t size = std::fread(buffer, 1, sizeof buffer, file)) {
    text.append(buffer, size);
    if (text.size() > kMaxFile) return absl::ResourceExhaustedError("is longer than 16 MiB");
  }
  if (std::ferror(file) != 0) return ErrnoStatus(errno, "read");
  return text;
}

}  // namespace

absl::Status ParseJson(std::string_view json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), message);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("not the JSON form of ", message->GetDescriptor()->name(), ": ",
                   OneLine(std::string_view(status.message().data(), status.message().size()))));
}

absl::Status ReadJsonFile(const std::string& path, google::protobuf::Message* message) {
  absl::StatusOr<std::string> text;
  if (path == "-") {
    text = ReadAll(stdin);
  } else {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                               &std::fclose);
    if (file == nullptr) return ErrnoStatus(errno, absl::StrCat("open ", path));
    text = ReadAll(file.get());
  }
  const std::string name = path == "-" ? "standard input" : path;
  if (!text.ok()) return WithContext(text.status(), name);
  return WithContext(ParseJson(*text, message), name);
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("no JSON form of ", message.GetDescriptor()->name(), ": ",
                     OneLine(std::string_view(status.message().data(), status.message().size()))));
  }
  if (json.empty() || json.back() != '\n') json += '\n';
  return json;
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : OneLine(text)) {
    if (c == '"' || c == '\\') json += '\\';
    json += c == '\t' ? ' ' : c;
  }
  return json + '"';
}

}  // namespace bothy::bothyctl
