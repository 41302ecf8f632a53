#include "cmd/bothyctl/error_text.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/output.h"

namespace bothy::bothyctl {

std::string StatusName(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return "OK";
    case absl::StatusCode::kCancelled:
      return "Cancelled";
    case absl::StatusCode::kUnknown:
      return "Unknown";
    case absl::StatusCode::kInvalidArgument:
      return "InvalidArgument";
    case absl::StatusCode::kDeadlineExceeded:
      return "DeadlineExceeded";
    case absl::StatusCode::kNotFound:
      return "NotFound";
    case absl::StatusCode::kAlreadyExists:
      return "AlreadyExists";
    case absl::StatusCode::kPermissionDenied:
      return "PermissionDenied";
    case absl::StatusCode::kUnauthenticated:
      return "Unauthenticated";
    case absl::StatusCode::kResourceExhausted:
      return "ResourceExhausted";
    case absl::StatusCode::kFailedPrecondition:
      return "FailedPrecondition";
    case absl::StatusCode::kAborted:
      return "Aborted";
    case absl::StatusCode::kOutOfRange:
      return "OutOfRange";
    case absl::StatusCode::kUnimplemented:
      return "Unimplemented";
    case absl::StatusCode::kInternal:
      return "Internal";
    case absl::StatusCode::kUnavailable:
      return "Unavailable";
    case absl::StatusCode::kDataLoss:
      return "DataLoss";
    default:
      return absl::StrCat("code ", static_cast<int>(code));
  }
}

std::string OneLine(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  std::string line;
  line.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '\n') {
      line += "; ";
    } else if (byte == '\r' && i + 1 < text.size() && text[i + 1] == '\n') {
      continue;
    } else if (byte == 0xc2 && i + 1 < text.size() &&
               (static_cast<unsigned char>(text[i + 1]) & 0xe0) == 0x80) {
      // U+0080..U+009F: terminals obey these, too.
      line += '?';
      ++i;
    } else if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
      line += '?';
    } else {
      line += text[i];
    }
  }
  return line;
}

std::string ErrorLine(std::string_view what, const absl::Status& status) {
  const absl::string_view message = status.message();
  std::string line = absl::StrCat(std::string(what), ": ", StatusName(status.code()));
  if (!message.empty()) absl::StrAppend(&line, ": ", message);
  return OneLine(line);
}

void PrintError(std::string_view line) {
  const std::string text =
      absl::StrCat(Paint("bothyctl:", Style::kError, STDERR_FILENO), " ", std::string(line), "\n");
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace bothy::bothyctl
