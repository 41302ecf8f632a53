// Whatever path is asked for: the answer is a status or a value, in time and memory that the tree
// bounds and not the question, and the tree is described no further than the path goes.
//
// The first byte is the number of levels, the rest the path.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "inspect/inspection.h"
#include "inspect/to_protobuf.h"
#include "support/check.h"

namespace bothy::inspect {
namespace {

// A tree with a bit of everything, some of it from "another thread".
struct Tree {
  std::vector<Later> elsewhere;

  void Describe(Node& node, int depth) {
    node.Value("text", "\xFF");
    node.Value("number", UINT64_MAX);
    if (depth == 0) return;
    node.Child("a", [this, depth](Node& child) { Describe(child, depth - 1); });
    node.Elsewhere("b", [this](Later later) { elsewhere.push_back(std::move(later)); });
  }
};

size_t Depth(const Value& value) {
  const auto* const directory = std::get_if<Directory>(&value);
  if (directory == nullptr) return 0;
  size_t deepest = 0;
  for (const Entry& entry : directory->entries) deepest = std::max(deepest, Depth(entry.value));
  return deepest + 1;
}

void Ask(std::string_view path, uint32_t levels) {
  const absl::StatusOr<Query> query = Query::Parse(path, levels);
  if (!query.ok()) {
    CHECK(query.status().message().size() < 256);
    return;
  }
  for (const std::string& component : query->path) {
    CHECK(!component.empty() && component.find('/') == std::string::npos);
  }
  Tree tree;
  bool answered = false;
  const auto inspection = Inspection::Start(
      *query, [&tree](Node& root) { tree.Describe(root, 3); },
      [&](const absl::StatusOr<Value>& answer) {
        CHECK(!answered);
        answered = true;
        if (!answer.ok()) {
          // The part of the path that there is, one name more, and the names that there are.
          CHECK(answer.status().message().size() < 512);
          return;
        }
        CHECK(Depth(*answer) <= size_t{levels} + 1);
        google::protobuf::Value parsed;
        CHECK(parsed.ParseFromString(ToProtobuf(*answer).SerializeAsString()));
      });
  // Some describe, the last is late, one goes away.
  for (int round = 0; round < 3 && !tree.elsewhere.empty(); ++round) {
    const Later later = tree.elsewhere.front();
    tree.elsewhere.erase(tree.elsewhere.begin());
    later.Describe([&tree](Node& node) { tree.Describe(node, 1); });
  }
  if (!tree.elsewhere.empty()) tree.elsewhere.pop_back();
  inspection->GiveUp();
  CHECK(answered);
}

}  // namespace
}  // namespace bothy::inspect

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  bothy::inspect::Ask({reinterpret_cast<const char*>(data) + 1, size - 1}, data[0] % 8);
  return 0;
}
