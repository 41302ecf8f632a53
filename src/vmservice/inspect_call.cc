#include "vmservice/inspect_call.h"

#include <asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <utility>

#include "inspect/to_protobuf.h"

namespace bothy::vmservice {

using ::vmservice::InspectVMResponse;

void StartInspection(EventLoop& control, const inspect::Query& query,
                     absl::FunctionRef<void(inspect::Node&)> describe_root,
                     inspect::Inspection::Done done) {
  constexpr auto kPatience = std::chrono::seconds(1);
  const std::weak_ptr<inspect::Inspection> inspection =
      inspect::Inspection::Start(query, describe_root, std::move(done));
  // Who still has to describe something keeps it alive.
  if (inspection.expired()) return;
  auto timer = std::make_shared<asio::steady_timer>(control.context(), kPatience);
  timer->async_wait([timer, inspection](const std::error_code& /*error*/) {
    if (const auto late = inspection.lock()) late->GiveUp();
  });
}

void AnswerInspect(EventLoop& control, const ::vmservice::InspectVMRequest& request,
                   absl::FunctionRef<void(inspect::Node&)> describe_root,
                   ttrpc::Reply<InspectVMResponse> reply) {
  const auto query = inspect::Query::Parse(request.query(), request.recursion_limit());
  if (!query.ok()) return reply(query.status());
  auto shared = std::make_shared<ttrpc::Reply<InspectVMResponse>>(std::move(reply));
  StartInspection(control, *query, describe_root,
                  [shared](const absl::StatusOr<inspect::Value>& value) {
                    if (!value.ok()) return (*shared)(value.status());
                    InspectVMResponse response;
                    *response.mutable_result() = inspect::ToProtobuf(*value);
                    (*shared)(response);
                  });
}

}  // namespace bothy::vmservice
