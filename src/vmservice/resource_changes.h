// ResourceChanges: the changes of one machine's resources that are under way.
//
// Changes of the same resource come one after another, in the order asked for; those of different
// ones go on at once. A change whose caller is gone, or whose VM halts or ends, is asked to give
// up.
//
// Control thread only. Callbacks may come before the call returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "machine/machine.h"
#include "support/status.h"
#include "support/trace.h"

namespace bothy::vmservice {

// Someone who waits for an answer.
struct PendingCall {
  using Done = std::function<void(absl::Status)>;
  // Whether the caller is gone or its deadline has passed: what it asked for is then undone,
  // because nobody has been told that it happened. Asked on the control thread just before Done.
  using Abandoned = std::function<bool()>;

  Abandoned abandoned;
  Done done;
};

struct ResourceChange {
  using Apply =
      std::function<void(machine::Machine&, machine::Change, std::stop_token, machine::ChangeDone)>;

  std::string resource;  // what is never changed twice at once, as logs name it: "scsi_disk 0:3"
  machine::Change change = machine::Change::kAdd;
  // Begins the change that it is told: the one above, or the removal that undoes an addition.
  Apply apply;
};

class ResourceChanges {
 public:
  // `machine` must outlive the object, or Drop be called before it goes.
  explicit ResourceChanges(machine::Machine& machine);
  // Nothing is pending any more.
  ~ResourceChanges();
  ResourceChanges(const ResourceChanges&) = delete;
  ResourceChanges& operator=(const ResourceChanges&) = delete;

  // Begins a change when it is its turn. `id` is the caller's for Stop. An addition that succeeds
  // after its caller has gone is taken back before the call's done comes.
  void Start(uint64_t id, ResourceChange change, PendingCall call);
  // The caller is gone: a change that hasn't begun never does, another is asked to give up.
  void Stop(uint64_t id);
  // There are no more changes, `why` says to those who ask: what hasn't begun never does, the rest
  // is asked to give up. `when_none`, if there is one, is called when nothing is pending. A later
  // call's `why` counts from then on.
  void EndAll(absl::Status why, std::function<void()> when_none);
  // Answers everyone with `why` and forgets what the machine is doing.
  void Drop(const absl::Status& why);

  [[nodiscard]] size_t pending() const;

 private:
  struct Pending {
    uint64_t id = 0;
    std::shared_ptr<const ResourceChange> change;
    PendingCall call;
    std::stop_source stop;
    bool begun = false;
    TraceOperation trace;
    bool undoing = false;
  };
  struct Queue {
    std::deque<Pending> pending;  // the first one has begun
    bool advancing = false;
  };
  using Queues = std::map<std::string, Queue>;

  void Advance(const std::string& resource);
  void Apply(Pending& pending, machine::Change change);
  void Ended(const std::string& resource, const absl::Status& status);
  void Answer(const std::string& resource, const absl::Status& status);
  void TellWhenNone();

  machine::Machine& machine_;
  Queues queues_;       // of resources with a change pending
  absl::Status ended_;  // not OK: there are no more changes
  std::function<void()> when_none_;
  // Expires when the object does or drops everything, for a machine that is still at it.
  std::shared_ptr<ResourceChanges*> self_;
};

}  // namespace bothy::vmservice
