// StartupSteps: how long the parts of a machine's start took, for inspection, and for the trace.
//
//   {
//     const auto step = steps.Begin("kvm");
//     ...                                 // until the end of the block
//   }
//
// Thread-safe: parts of a start run beside each other.
#pragma once

#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "inspect/node.h"
#include "support/trace.h"

namespace bothy::machine {

class StartupSteps {
 public:
  class Step {
   public:
    // `name` is a literal.
    Step(StartupSteps& steps, const char* name)
        : steps_(steps), name_(name), span_("startup", name) {}
    ~Step() { steps_.Record(name_, std::chrono::steady_clock::now() - begun_); }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    StartupSteps& steps_;
    const char* const name_;
    const TraceSpan span_;
    const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  };

  // A step that is done again, at a restart, shows the last time.
  [[nodiscard]] Step Begin(const char* name) { return {*this, name}; }

  // Values "NAME_ns" in the order in which steps first ended.
  void Inspect(inspect::Node& node) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, time] : done_) node.Value(absl::StrCat(name, "_ns"), time.count());
  }

 private:
  void Record(const char* name, std::chrono::nanoseconds time) {
    const std::lock_guard lock(mutex_);
    for (auto& [known, last] : done_) {
      if (known == std::string_view(name)) {
        last = time;
        return;
      }
    }
    done_.emplace_back(name, time);
  }

  mutable std::mutex mutex_;
  std::vector<std::pair<const char*, std::chrono::nanoseconds>> done_;  // guarded by mutex_
};

}  // namespace bothy::machine
