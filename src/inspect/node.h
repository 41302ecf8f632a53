// Node: a directory of the state tree while it is being described.
//
// Each component describes itself next to the state that it shows:
//
//   void Rtc::Inspect(inspect::Node& node) const {
//     node.Value("alarms", alarms_.load(std::memory_order_relaxed));
//     node.Address("base", kRtcBase);
//     node.Child("registers", [this](inspect::Node& registers) { ... });
//   }
//
// and whoever owns it gives it a name: node.Child("rtc", rtc_). A description runs when somebody
// asks, and only as far as that question goes: a Child that isn't asked for isn't called, so that a
// directory may cost something while its neighbours stay free. Nothing is kept between questions: a
// tree that nobody looks at costs nothing.
//
// Threads: descriptions run on the control thread, while the guest, the I/O threads and the life
// cycle go on. They read atomics, immutable configuration and state under mutexes that are only
// ever held for a few instructions. State that belongs to another thread is described there, see
// Elsewhere. Never block: no file is opened and no thread is waited for.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "inspect/value.h"

namespace bothy::inspect {

class Inspection;
class Later;

class Node {
 public:
  // Names are lower_case_with_units ("size_bytes", "flush_ns"), not empty, without '/', and
  // distinct within their directory. What there are several of is a directory with the numbers or
  // identities for names: "luns/3". Names are never chosen by the guest or an image.
  void Value(std::string_view name, bool value) { Leaf(name, inspect::Value(value)); }
  template <std::unsigned_integral T>
  void Value(std::string_view name, T value) {
    Leaf(name, inspect::Value(static_cast<uint64_t>(value)));
  }
  template <std::signed_integral T>
  void Value(std::string_view name, T value) {
    Leaf(name, inspect::Value(static_cast<int64_t>(value)));
  }
  void Value(std::string_view name, double value) { Leaf(name, inspect::Value(value)); }
  // Text may hold anything, also what a guest or an image says.
  void Value(std::string_view name, std::string_view text) {
    Leaf(name, inspect::Value(std::string(text)));
  }
  void Value(std::string_view name, const char* text) { Value(name, std::string_view(text)); }
  void Value(std::string_view name, const std::string& text) {
    Value(name, std::string_view(text));
  }
  // A guest-physical address or another number that is read in base 16: "0xfee00000".
  void Address(std::string_view name, uint64_t address);

  // A directory below this one; `describe` is called before Child returns, or not at all.
  void Child(std::string_view name, absl::FunctionRef<void(Node&)> describe);
  template <typename T>
  requires requires(const T& component, Node& node) { component.Inspect(node); }
  void Child(std::string_view name, const T& component) {
    Child(name, [&component](Node& node) { component.Inspect(node); });
  }

  // A directory that only another thread can describe. `ask` is called before Elsewhere returns, or
  // not at all; it passes its argument to that thread, which describes, soon:
  //
  //   node.Elsewhere("disk", [this](inspect::Later later) {
  //     io_.Post([this, later = std::move(later)]() mutable {
  //       later.Describe([this](inspect::Node& node) { ... });
  //     });
  //   });
  //
  // The answer doesn't wait for long: a thread that is late is shown as such (Inspection).
  void Elsewhere(std::string_view name, absl::FunctionRef<void(Later)> ask);

  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

 private:
  friend class Inspection;
  // What one description has found of what was asked for.
  struct Findings;
  struct Position {
    const Node* parent = nullptr;  // null: the description began here
    size_t index = 0;              // of this directory among the parent's entries
  };

  Node(Inspection& inspection, std::span<const std::string> path, uint32_t levels,
       Findings& findings, Position position)
      : inspection_(inspection),
        path_(path),
        levels_(levels),
        findings_(findings),
        position_(position) {}

  void Leaf(std::string_view name, inspect::Value value);
  // Whether `name` is the next component of the path; else it is remembered for the error.
  bool IsNext(std::string_view name);
  void Append(std::string_view name, inspect::Value value);

  Inspection& inspection_;
  // What is left of the path to the node that is asked for. Empty: this directory is that node or
  // below it, and collects entries.
  const std::span<const std::string> path_;
  const uint32_t levels_;  // of directories below this one that are filled in
  Findings& findings_;
  const Position position_;
  bool passed_ = false;  // the path's next component has been met
  Directory directory_;
};

// The right and the duty to describe one directory, once, on any thread. Copies share it (so that
// it fits into a std::function); when the last is destroyed unused, whoever should have described
// it has gone away, which is what the tree then shows.
class Later {
 public:
  // Runs `describe`, at most once over all copies.
  void Describe(absl::FunctionRef<void(Node&)> describe) const;

 private:
  friend class Inspection;
  friend class Node;
  struct State;
  explicit Later(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace bothy::inspect
