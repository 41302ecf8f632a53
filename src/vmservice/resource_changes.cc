#include "vmservice/resource_changes.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/log.h"

namespace bothy::vmservice {
namespace {

using machine::Change;

const char* Did(Change change) {
  switch (change) {
    case Change::kAdd:
      return "added ";
    case Change::kRemove:
      return "removed ";
    case Change::kUpdate:
      return "updated ";
  }
  return "";
}

const char* Verb(Change change) {
  switch (change) {
    case Change::kAdd:
      return "add";
    case Change::kRemove:
      return "remove";
    case Change::kUpdate:
      return "update";
  }
  return "";
}

bool Abandoned(const PendingCall& call) { return call.abandoned && call.abandoned(); }

absl::Status NobodyWaits() {
  return absl::CancelledError("the caller is gone or its deadline has passed");
}

}  // namespace

ResourceChanges::ResourceChanges(machine::Machine& machine)
    : machine_(machine), self_(std::make_shared<ResourceChanges*>(this)) {}

ResourceChanges::~ResourceChanges() {
  *self_ = nullptr;
  CHECK(queues_.empty());
}

void ResourceChanges::Start(uint64_t id, ResourceChange change, PendingCall call) {
  if (!ended_.ok()) return call.done(ended_);
  const std::string resource = change.resource;
  queues_[resource].pending.push_back(
      {.id = id,
       .change = std::make_shared<const ResourceChange>(std::move(change)),
       .call = std::move(call),
       .stop = {},
       .trace = {}});
  Advance(resource);
}

void ResourceChanges::Advance(const std::string& resource) {
  Queue& queue = queues_[resource];
  // A change that ends at once ends up here again, inside the loop that began it.
  if (std::exchange(queue.advancing, true)) return;
  while (!queue.pending.empty() && !queue.pending.front().begun) {
    queue.pending.front().begun = true;
    queue.pending.front().trace =
        TraceOperation("change", Verb(queue.pending.front().change->change), resource);
    Apply(queue.pending.front(), queue.pending.front().change->change);
  }
  queue.advancing = false;
  if (queue.pending.empty()) queues_.erase(resource);
  TellWhenNone();
}

// `pending` may be gone when this returns.
void ResourceChanges::Apply(Pending& pending, Change change) {
  const std::shared_ptr<const ResourceChange> resource_change = pending.change;
  auto called = std::make_shared<bool>(false);
  resource_change->apply(
      machine_, change, pending.stop.get_token(),
      [self = self_, called, resource = resource_change->resource](const absl::Status& status) {
        CHECK(!std::exchange(*called, true));
        if (*self != nullptr) (*self)->Ended(resource, status);
      });
}

void ResourceChanges::Ended(const std::string& resource, const absl::Status& status) {
  Queue& queue = queues_.at(resource);
  Pending& pending = queue.pending.front();
  if (pending.undoing) {
    if (!status.ok()) {
      LogError("vm", absl::StrCat(resource, ": can't take back an addition that nobody waits for: ",
                                  std::string(status.message())));
    }
    return Answer(resource, NobodyWaits());
  }
  if (status.ok()) {
    LogInfo("vm", absl::StrCat(Did(pending.change->change), resource));
    if (ended_.ok() && pending.change->change == Change::kAdd && Abandoned(pending.call)) {
      LogInfo("vm", absl::StrCat("taking ", resource, " back: nobody waits for it any more"));
      pending.undoing = true;
      pending.stop = std::stop_source();
      return Apply(pending, Change::kRemove);
    }
    return Answer(resource, status);
  }
  // Given up for the VM's sake rather than the caller's.
  if (absl::IsCancelled(status) && !ended_.ok()) return Answer(resource, ended_);
  Answer(resource, status);
}

void ResourceChanges::Answer(const std::string& resource, const absl::Status& status) {
  Queue& queue = queues_.at(resource);
  queue.pending.front().trace.End(status.ok() ? "" : std::string(status.message()));
  const PendingCall call = std::move(queue.pending.front().call);
  queue.pending.pop_front();
  call.done(status);
  Advance(resource);
}

void ResourceChanges::Stop(uint64_t id) {
  for (auto& [resource, queue] : queues_) {
    for (auto pending = queue.pending.begin(); pending != queue.pending.end(); ++pending) {
      if (pending->id != id) continue;
      if (pending->begun) {
        // What takes an addition back goes on.
        if (pending->undoing) return;
        std::stop_source stop = pending->stop;  // the change may end inside
        stop.request_stop();
        return;
      }
      const PendingCall call = std::move(pending->call);
      queue.pending.erase(pending);
      call.done(NobodyWaits());
      return;
    }
  }
}

void ResourceChanges::EndAll(absl::Status why, std::function<void()> when_none) {
  ended_ = std::move(why);
  if (when_none) when_none_ = std::move(when_none);
  std::vector<PendingCall> never_begun;
  std::vector<std::stop_source> begun;
  for (auto& [resource, queue] : queues_) {
    while (!queue.pending.empty() && !queue.pending.back().begun) {
      never_begun.push_back(std::move(queue.pending.back().call));
      queue.pending.pop_back();
    }
    for (const Pending& pending : queue.pending) begun.push_back(pending.stop);
  }
  for (const PendingCall& call : never_begun) call.done(ended_);
  for (std::stop_source& stop : begun) stop.request_stop();
  TellWhenNone();
}

void ResourceChanges::TellWhenNone() {
  if (!queues_.empty() || when_none_ == nullptr) return;
  std::exchange(when_none_, nullptr)();
}

void ResourceChanges::Drop(const absl::Status& why) {
  *self_ = nullptr;
  const Queues queues = std::exchange(queues_, {});
  for (const auto& [resource, queue] : queues) {
    for (const Pending& pending : queue.pending) pending.call.done(why);
  }
}

size_t ResourceChanges::pending() const {
  size_t count = 0;
  for (const auto& [resource, queue] : queues_) count += queue.pending.size();
  return count;
}

}  // namespace bothy::vmservice
