// Inspection: one question to the state tree and its answer (contract.md, InspectVM).
//
//   ASSIGN_OR_RETURN(inspect::Query query, inspect::Query::Parse("devices/scsi0", 1));
//   auto inspection = inspect::Inspection::Start(
//       query, [&](inspect::Node& root) { machine.Inspect(root); },
//       [](absl::StatusOr<inspect::Value> answer) { ... });
//   // some time later, if nothing has come:
//   inspection->GiveUp();
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "inspect/node.h"
#include "inspect/value.h"
#include "support/status.h"

namespace bothy::inspect {

struct Query {
  std::vector<std::string> path;  // components from the root; empty: the root itself
  uint32_t levels = 0;            // of directories below that node that are filled in

  // `path` is components with '/' between them; one more '/' at either end makes no difference.
  // InvalidArgument, beginning with "query: ", for an empty component between two others and for a
  // path that is longer than any that there is.
  static absl::StatusOr<Query> Parse(std::string_view path, uint32_t levels);
};

class Inspection : public std::enable_shared_from_this<Inspection> {
 public:
  // No tree is deeper than a reader of protobuf messages follows (100 nested messages, three of
  // them a level): directories this far below the node asked for are null.
  static constexpr uint32_t kMaxLevels = 24;
  static constexpr size_t kMaxPathBytes = 4096;

  using Done = std::function<void(absl::StatusOr<Value>)>;

  // Has `describe_root` describe the tree as far as `query` goes. `done` is called once, when all
  // that was asked of other threads has come: before Start returns, or later on any thread.
  //   NotFound  there is no such node; names the longest part of the path that there is, and what
  //             there is below it
  //   Unavailable  the path leads through a thread that has gone away or didn't answer
  static std::shared_ptr<Inspection> Start(const Query& query,
                                           absl::FunctionRef<void(Node&)> describe_root, Done done);
  ~Inspection();
  Inspection(const Inspection&) = delete;
  Inspection& operator=(const Inspection&) = delete;

  // Answers now: directories that haven't come are shown as a text that says so. Any thread.
  void GiveUp();

 private:
  friend class Node;
  friend class Later;

  Inspection(Query query, Done done);

  // One more directory that comes later, as the description of that number.
  Later Await(std::span<const std::string> path, uint32_t levels, uint64_t* number);
  void Describe(std::span<const std::string> path, uint32_t levels, uint64_t number,
                absl::FunctionRef<void(Node&)> describe);
  // Description `number` has ended; null: nobody is there to give it.
  void Arrived(uint64_t number, std::unique_ptr<Node::Findings> findings);

  using Found = std::map<uint64_t, std::unique_ptr<Node::Findings>>;
  absl::StatusOr<Value> Assemble(Found& found) const;

  const Query query_;
  std::mutex mutex_;
  Done done_;             // guarded by mutex_; null once it has been called
  uint64_t next_ = 1;     // guarded by mutex_
  uint64_t awaited_ = 1;  // guarded by mutex_; the root's description is number 0
  Found found_;           // guarded by mutex_
};

}  // namespace bothy::inspect
