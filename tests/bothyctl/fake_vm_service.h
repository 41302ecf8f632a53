// FakeVmService: the contract's service without a machine, for tests of its clients.
//
// It keeps the life cycle, records every call, and plays a guest on serial port 0 that does what
// the words of the kernel command line say when it is resumed:
//
//   print:TEXT    prints TEXT ("\n" is a new line, "_" a space)
//   flood:N       prints N KiB, in lines of 64 bytes that count up
//   poweroff      halts: power-off; likewise reset, crash (triple-fault)
//   deaf          reads nothing of what is typed
//
// What is typed comes back as "<hex>" each byte; but 'O' powers off, 'K' has the process kill
// itself, 'X' has it exit with status 7.
//
// Words for the service rather than the guest: refuse:FIELD (CreateVM is InvalidArgument, saying
// so), stuck:METHOD (that call is never answered), log:TEXT (one line on standard error).
//
// Loop thread only.
#pragma once

#include <asio/local/stream_protocol.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/event_loop.h"
#include "vmservice.ttrpc.h"

namespace bothy::bothyctl {

class FakeVmService : public ::vmservice::VMService {
 public:
  // `on_call` gets the name of each call as it comes; `on_quit` is called after Quit's answer.
  FakeVmService(EventLoop& loop, std::function<void(const std::string& method)> on_call,
                std::function<void()> on_quit);
  ~FakeVmService() override;

  using Call = std::shared_ptr<ttrpc::ServerCall>;
  using Empty = google::protobuf::Empty;
  void CreateVM(Call call, ::vmservice::CreateVMRequest request,
                ttrpc::Reply<Empty> reply) override;
  void TeardownVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void PauseVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void ResumeVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void WaitVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void InspectVM(Call call, ::vmservice::InspectVMRequest request,
                 ttrpc::Reply<::vmservice::InspectVMResponse> reply) override;
  void CapabilitiesVM(Call call, Empty request,
                      ttrpc::Reply<::vmservice::CapabilitiesVMResponse> reply) override;
  void PropertiesVM(Call call, ::vmservice::PropertiesVMRequest request,
                    ttrpc::Reply<::vmservice::PropertiesVMResponse> reply) override;
  void ModifyResource(Call call, ::vmservice::ModifyResourceRequest request,
                      ttrpc::Reply<Empty> reply) override;
  void VMSocket(Call call, ::vmservice::VMSocketRequest request,
                ttrpc::Reply<Empty> reply) override;
  void Quit(Call call, Empty request, ttrpc::Reply<Empty> reply) override;

  // The last of each.
  [[nodiscard]] const ::vmservice::CreateVMRequest& create_request() const { return create_; }
  [[nodiscard]] const ::vmservice::ModifyResourceRequest& modify_request() const { return modify_; }
  [[nodiscard]] const ::vmservice::VMSocketRequest& socket_request() const { return socket_; }
  [[nodiscard]] const ::vmservice::InspectVMRequest& inspect_request() const { return inspect_; }
  // What InspectVM answers.
  void set_inspect_result(absl::StatusOr<google::protobuf::Value> value) {
    inspect_result_ = std::move(value);
  }

 private:
  class Guest;

  // Records the call; true when it is one that is never answered, and has been put aside.
  template <typename Response>
  bool Stuck(const std::string& method, ttrpc::Reply<Response>& reply);
  void Halt(const std::string& reason);
  void WakeWaiters();

  EventLoop& loop_;
  const std::function<void(const std::string&)> on_call_;
  const std::function<void()> on_quit_;
  ::vmservice::VmState state_ = ::vmservice::Uninitialized;
  std::string halt_reason_;
  std::vector<std::string> words_;  // of the command line
  std::shared_ptr<Guest> guest_;
  std::vector<ttrpc::Reply<Empty>> waiters_;
  std::vector<ttrpc::Reply<Empty>> stuck_;
  ::vmservice::CreateVMRequest create_;
  ::vmservice::ModifyResourceRequest modify_;
  ::vmservice::VMSocketRequest socket_;
  ::vmservice::InspectVMRequest inspect_;
  absl::StatusOr<google::protobuf::Value> inspect_result_ = google::protobuf::Value();
};

}  // namespace bothy::bothyctl
