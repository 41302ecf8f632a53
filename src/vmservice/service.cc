#include "vmservice/service.h"

#include <asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "vmservice/create_request.h"
#include "vmservice/inspect_call.h"
#include "vmservice/modify_request.h"
#include "vmservice/socket_requests.h"
#include "vmservice/unknown_fields.h"

namespace bothy::vmservice {
namespace {

using google::protobuf::Empty;

// How long PropertiesVM waits for what the guest says of its memory; then what it said last will
// do.
constexpr std::chrono::milliseconds kGuestAnswer(200);

// Errors of the layers below begin with the path of a MachineConfig field, which is named as the
// wire names it from VMConfig on; here it becomes the path from the request's root.
absl::Status WithRequestPath(const absl::Status& status) {
  const std::string message(status.message());
  const std::string first = message.substr(0, message.find_first_of(".:["));
  if (wire::VMConfig::descriptor()->FindFieldByName(first) == nullptr) return status;
  return absl::Status(status.code(), absl::StrCat("config.", message));
}

// `translate` is what becomes of an error on its way to the client.
Lifecycle::Call MakeCall(const VmService::Call& call, ttrpc::Reply<Empty> reply,
                         absl::Status (*translate)(const absl::Status&) = WithRequestPath) {
  auto shared = std::make_shared<ttrpc::Reply<Empty>>(std::move(reply));
  return {.abandoned = [call] { return call->cancelled(); },
          .done =
              [shared, translate](const absl::Status& status) {
                if (status.ok()) {
                  (*shared)(Empty());
                } else {
                  (*shared)(translate(status));
                }
              }};
}

// For methods whose request says nothing: refuses unknown fields, true when that answered.
template <typename Request, typename Response>
bool RefusedUnknownFields(const Request& request, ttrpc::Reply<Response>& reply) {
  const absl::Status status = RefuseUnknownFields(request);
  if (status.ok()) return false;
  reply(status);
  return true;
}

wire::VmState ToWire(State state) {
  switch (state) {
    case State::kNoVm:
      return wire::Uninitialized;
    case State::kPaused:
      return wire::Paused;
    case State::kRunning:
      return wire::Running;
    case State::kHalted:
      return wire::Halted;
  }
  return wire::Uninitialized;
}

}  // namespace

VmService::VmService(EventLoop& control, machine::MachineFactory factory,
                     std::function<void()> on_quit)
    : control_(control), on_quit_(std::move(on_quit)), lifecycle_(control, std::move(factory)) {}

void VmService::CreateVM(Call call, wire::CreateVMRequest request, ttrpc::Reply<Empty> reply) {
  absl::StatusOr<machine::MachineConfig> config = TranslateCreateRequest(request);
  if (!config.ok()) return reply(config.status());
  std::stop_source creation =
      lifecycle_.Create(*std::move(config), request.log_id(), ForeignExtraData(request.config()),
                        MakeCall(call, std::move(reply)));
  call->OnCancel([creation]() mutable { creation.request_stop(); });
}

void VmService::TeardownVM(Call call, Empty request, ttrpc::Reply<Empty> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  lifecycle_.Teardown(MakeCall(call, std::move(reply)));
}

void VmService::PauseVM(Call call, Empty request, ttrpc::Reply<Empty> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  lifecycle_.Pause(MakeCall(call, std::move(reply)));
}

void VmService::ResumeVM(Call call, Empty request, ttrpc::Reply<Empty> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  lifecycle_.Resume(MakeCall(call, std::move(reply)));
}

void VmService::WaitVM(Call call, Empty request, ttrpc::Reply<Empty> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  const uint64_t id = lifecycle_.Wait(MakeCall(call, std::move(reply)).done);
  if (id != 0) call->OnCancel([this, id] { lifecycle_.CancelWait(id); });
}

void VmService::InspectVM(Call, wire::InspectVMRequest request,
                          ttrpc::Reply<wire::InspectVMResponse> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  AnswerInspect(
      control_, request, [this](inspect::Node& root) { lifecycle_.Inspect(root); },
      std::move(reply));
}

void VmService::InspectAll(inspect::Inspection::Done done) {
  StartInspection(
      control_, {.path = {}, .levels = inspect::Inspection::kMaxLevels},
      [this](inspect::Node& root) { lifecycle_.Inspect(root); }, std::move(done));
}

void VmService::CapabilitiesVM(Call, Empty request,
                               ttrpc::Reply<wire::CapabilitiesVMResponse> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  wire::CapabilitiesVMResponse response;
  // What kAllowed (modify_request.cc) says of each resource that this build can change.
  for (const auto resource :
       {wire::CapabilitiesVMResponse::Vpmem, wire::CapabilitiesVMResponse::Scsi,
        wire::CapabilitiesVMResponse::Vpci, wire::CapabilitiesVMResponse::Plan9,
        wire::CapabilitiesVMResponse::VMNic, wire::CapabilitiesVMResponse::Memory,
        wire::CapabilitiesVMResponse::Processor}) {
    auto* const supported = response.add_supported_resources();
    supported->set_resource(resource);
    const bool scsi = resource == wire::CapabilitiesVMResponse::Scsi;
    const bool pmem = resource == wire::CapabilitiesVMResponse::Vpmem;
    const bool nic = resource == wire::CapabilitiesVMResponse::VMNic;
    supported->set_add(scsi || pmem || nic);
    supported->set_remove(scsi || pmem || nic);
    supported->set_update(scsi || nic);
  }
  response.add_supported_guest_os(wire::CapabilitiesVMResponse::Linux);
  reply(response);
}

void VmService::PropertiesVM(Call, wire::PropertiesVMRequest request,
                             ttrpc::Reply<wire::PropertiesVMResponse> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  bool memory = request.types().empty();
  bool processor = request.types().empty();
  for (int i = 0; i < request.types_size(); ++i) {
    switch (request.types(i)) {
      case wire::PropertiesVMRequest::Memory:
        memory = true;
        break;
      case wire::PropertiesVMRequest::Processor:
        processor = true;
        break;
      default:
        return reply(absl::InvalidArgumentError(
            absl::StrCat("types[", i, "]: ", request.types(i), " is no PropertiesType")));
    }
  }
  machine::Machine* const machine = lifecycle_.machine();
  if (!memory || machine == nullptr) return reply(Properties(memory, processor));

  struct Question {
    Question(EventLoop& control, ttrpc::Reply<wire::PropertiesVMResponse> reply)
        : reply(std::move(reply)), timer(control.context()) {}
    ttrpc::Reply<wire::PropertiesVMResponse> reply;
    asio::steady_timer timer;
    bool answered = false;
  };
  const auto question = std::make_shared<Question>(control_, std::move(reply));
  const auto answer = [question, memory, processor, self = std::weak_ptr(self_)] {
    const auto service = self.lock();
    if (service == nullptr || std::exchange(question->answered, true)) return;
    question->timer.cancel();
    question->reply((*service)->Properties(memory, processor));
  };
  question->timer.expires_after(kGuestAnswer);
  question->timer.async_wait([answer](const asio::error_code& error) {
    if (!error) answer();
  });
  machine->AskGuestMemory(answer);
}

wire::PropertiesVMResponse VmService::Properties(bool memory, bool processor) const {
  wire::PropertiesVMResponse response;
  response.set_state(ToWire(lifecycle_.state()));
  response.set_halt_reason(lifecycle_.halt_reason());
  const machine::Machine* const machine = lifecycle_.machine();
  if (machine == nullptr) return response;
  const machine::MachineStats stats = machine->Stats();
  if (memory) {
    wire::MemoryStats& out = *response.mutable_memory_stats();
    out.set_working_set_bytes(stats.resident_ram_bytes);
    out.set_assigned_memory(stats.assigned_ram_bytes);
    out.set_reserved_memory(stats.reserved_ram_bytes);
    out.set_available_memory(stats.available_ram_bytes);
  }
  if (processor) response.mutable_processor_stats()->set_total_runtime_ns(stats.vcpu_runtime_ns);
  return response;
}

void VmService::ModifyResource(Call call, wire::ModifyResourceRequest request,
                               ttrpc::Reply<Empty> reply) {
  absl::StatusOr<ResourceChange> change = TranslateModifyRequest(request);
  if (!change.ok()) return reply(change.status());
  // The machine names fields of the request itself.
  const auto as_it_is = [](const absl::Status& status) { return status; };
  const uint64_t id =
      lifecycle_.Modify(*std::move(change), MakeCall(call, std::move(reply), as_it_is));
  call->OnCancel([this, id] { lifecycle_.CancelChange(id); });
}

void VmService::VMSocket(Call call, wire::VMSocketRequest request, ttrpc::Reply<Empty> reply) {
  absl::StatusOr<ResourceChange> change = TranslateSocketRequest(request);
  if (!change.ok()) return reply(change.status());
  const auto as_it_is = [](const absl::Status& status) { return status; };
  const uint64_t id =
      lifecycle_.Modify(*std::move(change), MakeCall(call, std::move(reply), as_it_is));
  call->OnCancel([this, id] { lifecycle_.CancelChange(id); });
}

void VmService::Quit(Call, Empty request, ttrpc::Reply<Empty> reply) {
  if (RefusedUnknownFields(request, reply)) return;
  auto shared = std::make_shared<ttrpc::Reply<Empty>>(std::move(reply));
  lifecycle_.EndCreating();
  // Not abandoned with its caller: whoever asked a server to end meant it.
  lifecycle_.Teardown({.abandoned = {}, .done = [this, shared](const absl::Status&) {
                         (*shared)(Empty());
                         Quit();
                       }});
}

void VmService::WarmUp() {
  // The descriptors of a whole .proto file are built together, when one is first asked for.
  static_cast<void>(RefuseUnknownFields(wire::CreateVMRequest::default_instance()));
}

void VmService::Quit() {
  if (std::exchange(quitting_, true)) return;
  lifecycle_.EndCreating();
  lifecycle_.Teardown({.abandoned = {}, .done = [this](const absl::Status&) { on_quit_(); }});
}

}  // namespace bothy::vmservice
