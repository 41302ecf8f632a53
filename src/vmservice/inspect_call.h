// One InspectVM: the question to the state tree, and a limit on the time that its answer may take.
#pragma once

#include "absl/functional/function_ref.h"
#include "inspect/inspection.h"
#include "inspect/node.h"
#include "support/event_loop.h"
#include "ttrpc/service.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// Answers `query` with what `describe_root` describes: before it returns, when everything is at
// hand, or within a second, whatever the threads do that have a part in it. `done` comes on any
// thread. Control thread.
void StartInspection(EventLoop& control, const inspect::Query& query,
                     absl::FunctionRef<void(inspect::Node&)> describe_root,
                     inspect::Inspection::Done done);

// Replies with what `describe_root` describes as far as the request goes, as StartInspection does.
void AnswerInspect(EventLoop& control, const ::vmservice::InspectVMRequest& request,
                   absl::FunctionRef<void(inspect::Node&)> describe_root,
                   ttrpc::Reply<::vmservice::InspectVMResponse> reply);

}  // namespace bothy::vmservice
