#include "inspect/node.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "inspect/findings.h"
#include "inspect/inspection.h"
#include "support/check.h"

namespace bothy::inspect {

void Node::Address(std::string_view name, uint64_t address) {
  Leaf(name, inspect::Value(absl::StrCat("0x", absl::Hex(address))));
}

void Node::Leaf(std::string_view name, inspect::Value value) {
  if (path_.empty()) return Append(name, std::move(value));
  if (!IsNext(name)) return;
  if (path_.size() > 1) {
    findings_.is_leaf = true;
    return;
  }
  findings_.found = true;
  findings_.value = std::move(value);
}

void Node::Child(std::string_view name, absl::FunctionRef<void(Node&)> describe) {
  if (path_.empty()) {
    if (levels_ == 0) return Append(name, Null());
    // Its place first: what comes later is put there by its index.
    const size_t index = directory_.entries.size();
    Append(name, Null());
    Node child(inspection_, {}, levels_ - 1, findings_, {.parent = this, .index = index});
    describe(child);
    directory_.entries[index].value = std::move(child.directory_);
    return;
  }
  if (!IsNext(name)) return;
  Node child(inspection_, path_.subspan(1), levels_, findings_, {});
  describe(child);
  if (path_.size() == 1) {
    findings_.found = true;
    findings_.value = std::move(child.directory_);
  }
}

void Node::Elsewhere(std::string_view name, absl::FunctionRef<void(Later)> ask) {
  uint64_t number = 0;
  if (path_.empty()) {
    Append(name, Null());
    if (levels_ == 0) return;
    const Later later = inspection_.Await({}, levels_ - 1, &number);
    Findings::Awaited awaited{.number = number, .position = {directory_.entries.size() - 1}};
    for (const Node* node = this; node->position_.parent != nullptr;
         node = node->position_.parent) {
      awaited.position.push_back(node->position_.index);
    }
    std::reverse(awaited.position.begin(), awaited.position.end());
    findings_.awaited.push_back(std::move(awaited));
    return ask(later);
  }
  if (!IsNext(name)) return;
  const Later later = inspection_.Await(path_.subspan(1), levels_, &number);
  findings_.elsewhere = number;
  ask(later);
}

bool Node::IsNext(std::string_view name) {
  // What stands beside the component that the path goes through is of no interest.
  if (passed_) return false;
  if (name == path_.front()) {
    passed_ = true;
    ++findings_.matched;
    findings_.names.clear();
    findings_.more_names = false;
    return true;
  }
  if (findings_.names.size() < Findings::kMostNames) {
    findings_.names.emplace_back(name);
  } else {
    findings_.more_names = true;
  }
  return false;
}

void Node::Append(std::string_view name, inspect::Value value) {
  CHECK(!name.empty() && name.find('/') == std::string_view::npos);
  directory_.entries.push_back({.name = std::string(name), .value = std::move(value)});
}

}  // namespace bothy::inspect
