// VmService: the contract's service VM over a Lifecycle.
//
// Each method validates, turns protobuf into plain values, asks the life cycle, and turns the
// status back. Control thread only.
#pragma once

#include <functional>
#include <memory>

#include "inspect/inspection.h"
#include "machine/machine.h"
#include "support/event_loop.h"
#include "vmservice.ttrpc.h"
#include "vmservice/lifecycle.h"

namespace bothy::vmservice {

namespace wire = ::vmservice;

class VmService final : public wire::VMService {
 public:
  using Empty = google::protobuf::Empty;
  using Call = std::shared_ptr<ttrpc::ServerCall>;

  // `on_quit` is called after Quit has torn the VM down and answered: the process is to end.
  VmService(EventLoop& control, machine::MachineFactory factory, std::function<void()> on_quit);

  // Builds what the first CreateVM would: protobuf's descriptors, which take a few tenths of a
  // millisecond. For the time between "ready" and the first call.
  static void WarmUp();

  // What Quit does, for signals: tears the VM down, then on_quit. More than once is once.
  void Quit();

  // The whole state tree, as InspectVM sees it, for those in this process who look at it (metrics).
  // `done` comes on any thread, within a second or so.
  void InspectAll(inspect::Inspection::Done done);

  void CreateVM(Call call, wire::CreateVMRequest request, ttrpc::Reply<Empty> reply) override;
  void TeardownVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void PauseVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void ResumeVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void WaitVM(Call call, Empty request, ttrpc::Reply<Empty> reply) override;
  void InspectVM(Call call, wire::InspectVMRequest request,
                 ttrpc::Reply<wire::InspectVMResponse> reply) override;
  void CapabilitiesVM(Call call, Empty request,
                      ttrpc::Reply<wire::CapabilitiesVMResponse> reply) override;
  void PropertiesVM(Call call, wire::PropertiesVMRequest request,
                    ttrpc::Reply<wire::PropertiesVMResponse> reply) override;
  void ModifyResource(Call call, wire::ModifyResourceRequest request,
                      ttrpc::Reply<Empty> reply) override;
  void VMSocket(Call call, wire::VMSocketRequest request, ttrpc::Reply<Empty> reply) override;
  void Quit(Call call, Empty request, ttrpc::Reply<Empty> reply) override;

 private:
  [[nodiscard]] wire::PropertiesVMResponse Properties(bool memory, bool processor) const;

  EventLoop& control_;
  const std::function<void()> on_quit_;
  bool quitting_ = false;
  Lifecycle lifecycle_;
  // Of what may come when this is no more.
  const std::shared_ptr<VmService*> self_ = std::make_shared<VmService*>(this);
};

}  // namespace bothy::vmservice
