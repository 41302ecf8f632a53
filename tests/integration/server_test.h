// ServerTest: the fixture of tests that drive a real server over its socket.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "support/status.h"
#include "support/testing/test_folder.h"
#include "tests/integration/serial_client.h"
#include "tests/integration/server_process.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::integration {

namespace wire = ::vmservice;

// A request for a VM that needs nothing of the host but KVM and some pageable memory.
[[nodiscard]] wire::CreateVMRequest DirectBoot(const std::string& kernel_path,
                                               uint64_t memory_mb = 2);
// Adds a serial port.
void AddSerial(wire::CreateVMRequest& request, uint32_t port, const std::string& socket_path,
               bool connect = false);

// A connection to a server, and its calls without the empty messages.
class Vm {
 public:
  explicit Vm(const std::string& socket_path);

  absl::Status Create(const wire::CreateVMRequest& request);
  absl::Status Resume() { return stub_.ResumeVM({}).status(); }
  absl::Status Pause() { return stub_.PauseVM({}).status(); }
  absl::Status Teardown() { return stub_.TeardownVM({}).status(); }
  absl::Status Wait() { return stub_.WaitVM({}).status(); }
  // WaitVM, answered later.
  std::future<absl::Status> StartWait();
  absl::Status Quit() { return stub_.Quit({}).status(); }
  absl::StatusOr<wire::CapabilitiesVMResponse> Capabilities() { return stub_.CapabilitiesVM({}); }
  absl::StatusOr<wire::PropertiesVMResponse> Properties() { return stub_.PropertiesVM({}); }

  // Waits for the guest to halt; why it did.
  std::string HaltReason();

  wire::VMClient& stub() { return stub_; }

 private:
  std::unique_ptr<ttrpc::Client> client_;
  wire::VMClient stub_;
};

class ServerTest : public ::testing::Test {
 protected:
  void TearDown() override;

  // Starts a server on folder_ / "vm.sock", and a connection to it.
  void StartServer(const std::vector<std::string>& arguments = {});
  [[nodiscard]] std::string SocketPath() const { return folder_ / "vm.sock"; }
  [[nodiscard]] std::string SerialPath() const { return folder_ / "com1.sock"; }

  // A micro kernel as a file.
  std::string KernelFile(const std::vector<uint8_t>& kernel) const {
    return folder_.Write("kernel", kernel);
  }

  TestFolder folder_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Vm> vm_;
};

// Of any status: EXPECT_THAT(vm_->Create(request), IsOk()).
MATCHER(IsOk, "is OK") {
  *result_listener << arg;
  return arg.ok();
}
MATCHER_P2(Fails, code, message, "") {
  *result_listener << arg;
  return arg.code() == code && testing::Value(std::string(arg.message()), message);
}

}  // namespace bothy::integration
