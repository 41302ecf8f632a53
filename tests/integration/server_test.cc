#include "tests/integration/server_test.h"

#include <algorithm>

#include "support/check.h"

namespace bothy::integration {
namespace {

std::unique_ptr<ttrpc::Client> ConnectTo(const std::string& path) {
  auto client = ttrpc::Client::Connect(path);
  if (!client.ok()) ADD_FAILURE() << client.status();
  CHECK_OK(client);
  return *std::move(client);
}

}  // namespace

wire::CreateVMRequest DirectBoot(const std::string& kernel_path, uint64_t memory_mb) {
  wire::CreateVMRequest request;
  wire::VMConfig& config = *request.mutable_config();
  config.mutable_memory_config()->set_memory_mb(memory_mb);
  config.mutable_memory_config()->set_allow_overcommit(true);
  config.mutable_direct_boot()->set_kernel_path(kernel_path);
  return request;
}

void AddSerial(wire::CreateVMRequest& request, uint32_t port, const std::string& socket_path,
               bool connect) {
  auto& added = *request.mutable_config()->mutable_serial_config()->add_ports();
  added.set_port(port);
  added.set_socket_path(socket_path);
  added.set_connect(connect);
}

Vm::Vm(const std::string& socket_path) : client_(ConnectTo(socket_path)), stub_(*client_) {}

absl::Status Vm::Create(const wire::CreateVMRequest& request) {
  return stub_.CreateVM(request).status();
}

std::future<absl::Status> Vm::StartWait() {
  auto promise = std::make_shared<std::promise<absl::Status>>();
  stub_.WaitVMAsync({}, {}, [promise](const auto& answer) { promise->set_value(answer.status()); });
  return promise->get_future();
}

std::string Vm::HaltReason() {
  EXPECT_EQ(Wait(), absl::OkStatus());
  const auto properties = Properties();
  if (!properties.ok()) {
    ADD_FAILURE() << properties.status();
    return "";
  }
  EXPECT_EQ(properties->state(), wire::Halted);
  return properties->halt_reason();
}

void ServerTest::StartServer(const std::vector<std::string>& arguments) {
  server_ = std::make_unique<ServerProcess>(
      ServerOptions{.socket_path = SocketPath(), .arguments = arguments});
  ASSERT_EQ(server_->AwaitReady(), "");
  vm_ = std::make_unique<Vm>(SocketPath());
}

void ServerTest::TearDown() {
  vm_.reset();
  if (HasFailure() && server_ != nullptr) {
    constexpr size_t kShown = 4096;
    const std::string log = server_->Log();
    std::cerr << "the end of the server's log:\n"
              << log.substr(log.size() - std::min(log.size(), kShown));
  }
  server_.reset();
}

}  // namespace bothy::integration
