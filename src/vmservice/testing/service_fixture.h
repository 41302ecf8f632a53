// ServiceTest: a VmService behind a ttrpc server, a client of it over real sockets, and a host
// whose machines only pretend.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stop_token>
#include <utility>
#include <vector>

#include "support/event_loop.h"
#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/testing/frames.h"
#include "vmservice/service.h"
#include "vmservice/testing/recording_machine.h"

namespace bothy::vmservice {

inline constexpr uint64_t kMiB = 1 << 20;

// The host on which machines are made. Machine thread, vCPU threads and the test's.
class FakeHost {
 public:
  // From now on the factory waits until LetCreate, too far on to heed a stop.
  void HoldCreate() {
    const std::lock_guard lock(mutex_);
    hold_ = true;
  }
  // From now on the factory waits until it is stopped.
  void CreateUntilStopped() {
    const std::lock_guard lock(mutex_);
    until_stopped_ = true;
  }
  void AwaitCreating() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return creating_; });
  }
  void LetCreate() {
    const std::lock_guard lock(mutex_);
    hold_ = false;
    changed_.notify_all();
  }
  void FailCreate(absl::Status status) {
    const std::lock_guard lock(mutex_);
    create_status_ = std::move(status);
  }
  // What the newest machine's guest does.
  void GuestDoes(chipset::PowerEvent event) {
    machine::PowerObserver observer;
    {
      const std::lock_guard lock(mutex_);
      observer = observer_;
    }
    observer(event);
  }
  [[nodiscard]] machine::MachineConfig last_config() const {
    const std::lock_guard lock(mutex_);
    return last_config_;
  }
  // The newest machine; control thread, while it lives.
  [[nodiscard]] RecordingMachine& machine() const {
    const std::lock_guard lock(mutex_);
    return *newest_;
  }
  [[nodiscard]] int alive() const { return alive_; }
  [[nodiscard]] int made() const { return made_; }

  absl::StatusOr<std::unique_ptr<machine::Machine>> Make(const machine::MachineConfig& config,
                                                         machine::PowerObserver observer,
                                                         const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    creating_ = true;
    changed_.notify_all();
    if (std::exchange(until_stopped_, false)) {
      changed_.wait(lock, stop, [] { return false; });
      creating_ = false;
      return absl::CancelledError("given up");
    }
    changed_.wait(lock, [this] { return !hold_; });
    creating_ = false;
    last_config_ = config;
    observer_ = std::move(observer);
    if (!create_status_.ok()) return create_status_;
    ++made_;
    auto machine = std::make_unique<FakeMachine>(alive_);
    newest_ = machine.get();
    return machine;
  }

 private:
  class FakeMachine final : public RecordingMachine {
   public:
    explicit FakeMachine(std::atomic<int>& alive) : alive_(alive) { ++alive_; }
    ~FakeMachine() override { --alive_; }
    [[nodiscard]] machine::MachineStats Stats() const override {
      return {.assigned_ram_bytes = 64 * kMiB,
              .resident_ram_bytes = 3 * kMiB,
              .reserved_ram_bytes = 4 * kMiB,
              .available_ram_bytes = available_ram_bytes,
              .vcpu_runtime_ns = 5};
    }

   private:
    std::atomic<int>& alive_;
  };

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  bool hold_ = false;
  bool until_stopped_ = false;
  bool creating_ = false;
  absl::Status create_status_;
  machine::MachineConfig last_config_;
  machine::PowerObserver observer_;
  RecordingMachine* newest_ = nullptr;

  std::atomic<int> alive_{0};
  std::atomic<int> made_{0};
};

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    OnControl([this] {
      service_ = std::make_unique<VmService>(
          control_.loop(),
          [this](const machine::MachineConfig& config, machine::PowerObserver observer,
                 const std::stop_token& stop) {
            return host_.Make(config, std::move(observer), stop);
          },
          [this] { quit_.set_value(); });
      auto server = ttrpc::Server::Create(control_.loop(), {});
      ASSERT_TRUE(server.ok()) << server.status();
      server_ = *std::move(server);
      ASSERT_TRUE(server_->Register(*service_).ok());
    });
    client_ = Connect();
    vm_ = std::make_unique<wire::VMClient>(*client_);
  }
  ~ServiceTest() override {
    vm_.reset();
    client_.reset();
    OnControl([this] {
      server_.reset();
      service_.reset();
    });
    EXPECT_EQ(host_.alive(), 0);
  }

  void OnControl(const std::function<void()>& task) { control_.loop().PostAndWait(task); }

  UniqueFd Socket() {
    auto [ours, theirs] = bothy::testing::SocketPair();
    OnControl([&server = server_, &socket = theirs] {
      EXPECT_TRUE(server->Adopt(std::move(socket)).ok());
    });
    return std::move(ours);
  }
  std::unique_ptr<ttrpc::Client> Connect() { return ttrpc::Client::Adopt(Socket()); }
  // Returns when the server has let go of all connections but `count`.
  void AwaitConnections(size_t count) {
    for (size_t now = SIZE_MAX; now != count;) {
      OnControl([&] { now = server_->connections(); });
    }
  }

  static wire::CreateVMRequest Request() {
    wire::CreateVMRequest request;
    request.mutable_config()->mutable_memory_config()->set_memory_mb(64);
    request.mutable_config()->mutable_direct_boot()->set_kernel_path("/boot/vmlinuz");
    return request;
  }
  void CreateVm() {
    const absl::Status status = vm_->CreateVM(Request()).status();
    ASSERT_TRUE(status.ok()) << status;
  }
  wire::PropertiesVMResponse Properties(
      const std::vector<wire::PropertiesVMRequest::PropertiesType>& types = {}) {
    wire::PropertiesVMRequest request;
    for (const auto type : types) request.add_types(type);
    const auto properties = vm_->PropertiesVM(request);
    EXPECT_TRUE(properties.ok()) << properties.status();
    return properties.ok() ? *properties : wire::PropertiesVMResponse();
  }

  static std::future<absl::Status> StartWait(wire::VMClient& vm) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    vm.WaitVMAsync({}, {}, [promise](const auto& answer) { promise->set_value(answer.status()); });
    return promise->get_future();
  }
  // A WaitVM that the server has: a later call of the same connection has been answered.
  std::future<absl::Status> PendingWait(wire::VMClient& vm) {
    std::future<absl::Status> wait = StartWait(vm);
    EXPECT_TRUE(vm.CapabilitiesVM({}).ok());
    return wait;
  }

  static wire::ModifyResourceRequest ScsiRequest(wire::ModifyType type, uint32_t lun) {
    wire::ModifyResourceRequest request;
    request.set_type(type);
    request.mutable_scsi_disk()->set_lun(lun);
    request.mutable_scsi_disk()->set_host_path("/disk.vhd");
    return request;
  }
  static std::future<absl::Status> StartModify(wire::VMClient& vm,
                                               const wire::ModifyResourceRequest& request) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    vm.ModifyResourceAsync(request, {},
                           [promise](const auto& answer) { promise->set_value(answer.status()); });
    return promise->get_future();
  }
  // Returns when the machine has begun so many changes in all.
  void AwaitChanges(size_t count) {
    for (size_t now = SIZE_MAX; now != count;) {
      OnControl([&] { now = host_.machine().changes.size(); });
    }
  }

  FakeHost host_;
  LoopThread control_{"control"};
  std::promise<void> quit_;
  std::unique_ptr<VmService> service_;
  std::unique_ptr<ttrpc::Server> server_;
  std::unique_ptr<ttrpc::Client> client_;
  std::unique_ptr<wire::VMClient> vm_;
};

}  // namespace bothy::vmservice
