// One InspectVM: the question to the state tree, and a limit on the time that its answer may take.
#pragma once

#include "absl/functional/function_ref.h"
#include "inspect/node.h"
#include "support/event_loop.h"
#include "ttrpc/service.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// Replies with what `describe_root` describes as far as the request goes: now, when everything is
// at hand, or within a second, whatever the threads do that have a part in it. Control thread.
void AnswerInspect(EventLoop& control, const ::vmservice::InspectVMRequest& request,
                   absl::FunctionRef<void(inspect::Node&)> describe_root,
                   ttrpc::Reply<::vmservice::InspectVMResponse> reply);

}  // namespace bothy::vmservice
