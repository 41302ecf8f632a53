#include "cmd/bothyctl/node_completion.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/connection.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/natural_order.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Value;

constexpr std::chrono::milliseconds kPatience{1500};

bool IsFolder(const Value& value) {
  return value.kind_case() == Value::kNullValue || value.kind_case() == Value::kStructValue;
}

std::string FromEnvironment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string ServerOf(const std::vector<std::string>& words) {
  constexpr std::string_view kLong = "--address=";
  std::string server = FromEnvironment("BOTHY_ADDRESS");
  // The last is the one that is being typed.
  for (size_t i = 0; i + 1 < words.size() && words[i] != "--"; ++i) {
    const std::string& word = words[i];
    if (word == "--address" || word == "-a") {
      if (i + 2 < words.size()) server = words[++i];
    } else if (word.starts_with(kLong)) {
      server = word.substr(kLong.size());
    } else if (word.starts_with("-a")) {
      server = word.substr(2);
    }
  }
  return server.starts_with("~/") ? FromEnvironment("HOME") + server.substr(1) : server;
}

std::vector<Completion::Candidate> CompleteNodes(const std::string& server,
                                                 const std::string& path) {
  std::vector<Completion::Candidate> candidates;
  if (server.empty()) return candidates;
  absl::StatusOr<Connection> connection = Connection::Open(server);
  if (!connection.ok()) return candidates;
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  ::vmservice::InspectVMRequest request;
  request.set_query(folder);
  const auto answer = connection->vm().InspectVM(request, {.timeout = kPatience});
  if (!answer.ok()) return candidates;
  for (const auto& [name, value] : answer->result().struct_value().fields()) {
    std::string word = absl::StrCat(folder, name, IsFolder(value) ? "/" : "");
    // The script that reads this takes lines apart.
    if (!word.starts_with(path) || OneLine(word) != word) continue;
    candidates.push_back({std::move(word), ""});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) { return NaturallyLess(a.word, b.word); });
  return candidates;
}

}  // namespace bothy::bothyctl
