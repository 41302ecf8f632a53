#include "cmd/bothyctl/json_form.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
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

// Of the character that `text` begins with, in bytes; 0 when that isn't UTF-8 (RFC 3629, 4).
size_t Utf8Length(std::string_view text) {
  const auto at = [text](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  // Longer than need be, a surrogate, past the last character.
  const unsigned second = at(1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return 0;
  if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return 0;
  return length;
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
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const auto byte = static_cast<unsigned char>(text.front());
    if (length == 0) {
      json += "\\ufffd";  // a name of a file is any bytes, JSON is UTF-8
    } else if (byte == '"' || byte == '\\') {
      json += '\\';
      json += text.front();
    } else if (byte < 0x20 || byte == 0x7F) {
      absl::StrAppend(&json, "\\u", absl::Hex(byte, absl::kZeroPad4));
    } else {
      json += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return json + '"';
}

}  // namespace bothy::bothyctl
