#include "inspect/inspection.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "inspect/findings.h"
#include "support/check.h"

namespace bothy::inspect {
namespace {

constexpr char kNoAnswer[] = "(no answer in time)";
constexpr char kGone[] = "(gone)";
constexpr size_t kMostShown = 128;  // bytes of a name that a client sent

std::string Quoted(const std::string& name) {
  return absl::StrCat("\"", name.substr(0, kMostShown), name.size() > kMostShown ? "..." : "",
                      "\"");
}

Value* At(Value& root, const std::vector<size_t>& position) {
  Value* value = &root;
  for (const size_t index : position) {
    auto* const directory = std::get_if<Directory>(value);
    CHECK(directory != nullptr && index < directory->entries.size());
    value = &directory->entries[index].value;
  }
  return value;
}

}  // namespace

absl::StatusOr<Query> Query::Parse(std::string_view path, uint32_t levels) {
  if (path.size() > Inspection::kMaxPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("query: ", path.size(), " bytes are more than ", Inspection::kMaxPathBytes));
  }
  Query query{.path = {}, .levels = levels};
  if (path.starts_with('/')) path.remove_prefix(1);
  if (path.ends_with('/')) path.remove_suffix(1);
  if (path.empty()) return query;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (end == begin) {
      return absl::InvalidArgumentError(
          absl::StrCat("query: component ", query.path.size() + 1, " is empty"));
    }
    query.path.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return query;
}

struct Later::State {
  State(std::shared_ptr<Inspection> asker, std::span<const std::string> rest, uint32_t depth,
        uint64_t which)
      : inspection(std::move(asker)), path(rest), levels(depth), number(which) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!used) inspection->Arrived(number, nullptr);
  }

  const std::shared_ptr<Inspection> inspection;
  const std::span<const std::string> path;  // of the inspection's query
  const uint32_t levels;
  const uint64_t number;
  std::atomic<bool> used = false;
};

void Later::Describe(absl::FunctionRef<void(Node&)> describe) const {
  if (state_->used.exchange(true)) return;
  state_->inspection->Describe(state_->path, state_->levels, state_->number, describe);
}

std::shared_ptr<Inspection> Inspection::Start(const Query& query,
                                              absl::FunctionRef<void(Node&)> describe_root,
                                              Done done) {
  std::shared_ptr<Inspection> inspection(new Inspection(query, std::move(done)));
  inspection->Describe(inspection->query_.path, std::min(query.levels, kMaxLevels), 0,
                       describe_root);
  return inspection;
}

Inspection::Inspection(Query query, Done done) : query_(std::move(query)), done_(std::move(done)) {}
Inspection::~Inspection() = default;

Later Inspection::Await(std::span<const std::string> path, uint32_t levels, uint64_t* number) {
  const std::lock_guard lock(mutex_);
  ++awaited_;
  *number = next_++;
  return Later(std::make_shared<Later::State>(shared_from_this(), path, levels, *number));
}

void Inspection::Describe(std::span<const std::string> path, uint32_t levels, uint64_t number,
                          absl::FunctionRef<void(Node&)> describe) {
  auto findings = std::make_unique<Node::Findings>();
  Node node(*this, path, levels, *findings, {});
  describe(node);
  if (path.empty()) {
    findings->found = true;
    findings->value = std::move(node.directory_);
  }
  Arrived(number, std::move(findings));
}

void Inspection::Arrived(uint64_t number, std::unique_ptr<Node::Findings> findings) {
  Done done;
  Found found;
  {
    const std::lock_guard lock(mutex_);
    if (done_ == nullptr) return;  // given up before
    found_[number] = std::move(findings);
    if (--awaited_ > 0) return;
    done = std::exchange(done_, nullptr);
    found = std::move(found_);
  }
  done(Assemble(found));
}

void Inspection::GiveUp() {
  Done done;
  Found found;
  {
    const std::lock_guard lock(mutex_);
    if (done_ == nullptr) return;
    done = std::exchange(done_, nullptr);
    found = std::move(found_);
  }
  done(Assemble(found));
}

absl::StatusOr<Value> Inspection::Assemble(Found& found) const {
  const std::vector<std::string>& path = query_.path;
  // To the description that has, or hasn't, the node itself.
  uint64_t number = 0;
  size_t matched = 0;
  while (true) {
    const auto here = found.find(number);
    if (here == found.end() || here->second == nullptr) {
      const char* const why = here == found.end() ? kNoAnswer : kGone;
      if (matched == path.size()) return Value(std::string(why));
      return absl::UnavailableError(
          absl::StrCat("query: \"", absl::StrJoin(path.begin(), path.begin() + matched, "/"),
                       "\" can't be looked into: ", why));
    }
    matched += here->second->matched;
    if (here->second->elsewhere == 0) break;
    number = here->second->elsewhere;
  }
  Node::Findings& last = *found[number];
  if (!last.found) {
    const std::string exists =
        matched == 0
            ? "the root"
            : absl::StrCat("\"", absl::StrJoin(path.begin(), path.begin() + matched, "/"), "\"");
    if (last.is_leaf) {
      return absl::NotFoundError(absl::StrCat("query: ", exists, " is a value, there is no ",
                                              Quoted(path[matched]), " below it"));
    }
    return absl::NotFoundError(
        absl::StrCat("query: ", exists, " has no ", Quoted(path[matched]), "; it has ",
                     last.names.empty() ? "nothing" : absl::StrJoin(last.names, ", "),
                     last.more_names ? ", ..." : ""));
  }
  // A directory that came later may hold further ones.
  std::vector<std::pair<Value*, Node::Findings*>> to_complete = {{&last.value, &last}};
  while (!to_complete.empty()) {
    const auto [value, findings] = to_complete.back();
    to_complete.pop_back();
    for (const Node::Findings::Awaited& awaited : findings->awaited) {
      Value& place = *At(*value, awaited.position);
      const auto answer = found.find(awaited.number);
      if (answer == found.end()) {
        place = std::string(kNoAnswer);
      } else if (answer->second == nullptr) {
        place = std::string(kGone);
      } else {
        place = std::move(answer->second->value);
        to_complete.emplace_back(&place, answer->second.get());
      }
    }
  }
  return std::move(last.value);
}

}  // namespace bothy::inspect
