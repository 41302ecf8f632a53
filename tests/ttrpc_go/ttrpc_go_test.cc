// Our ttrpc against containerd's Go package, both ways. The Go programs are beside this file.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/testing/test_folder.h"
#include "support/unique_fd.h"
#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/testing/server_fixture.h"
#include "ttrpc/unix_socket.h"
#include "vmservice.ttrpc.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoClient;
using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::FailRequest;
using bothy::testing::FillRequest;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A Go program under way; killed with this object.
class GoProgram {
 public:
  GoProgram(const std::string& name, std::vector<std::string> arguments) {
    const std::string path = std::string(BOTHY_GO_BIN) + "/" + name;
    EXPECT_TRUE(std::filesystem::exists(path))
        << path << " isn't built: Go is missing (./dev setup test installs it)";
    int output[2];
    EXPECT_EQ(::pipe2(output, O_CLOEXEC), 0);
    output_.Reset(output[0]);
    UniqueFd theirs(output[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
    std::vector<char*> argv = {const_cast<char*>(path.c_str())};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    if (::posix_spawn(&pid_, path.c_str(), &actions, nullptr, argv.data(), environ) != 0) {
      ADD_FAILURE() << "can't run " << path;
      pid_ = -1;
    }
    ::posix_spawn_file_actions_destroy(&actions);
  }
  GoProgram(const GoProgram&) = delete;
  GoProgram& operator=(const GoProgram&) = delete;
  ~GoProgram() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  // All that it prints, until it closes its output.
  std::string Output() {
    std::string text;
    char buffer[4096];
    for (ssize_t size; (size = ::read(output_.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(size));
    }
    return text;
  }
  // Its exit status.
  int Wait() {
    int status = -1;
    if (pid_ <= 0 || ::waitpid(pid_, &status, 0) != pid_) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

// Go client, our server. One case for each check of echo_client.go.
class GoClientTest : public bothy::testing::ServerFixture,
                     public ::testing::WithParamInterface<const char*> {
 protected:
  void Listen() {
    OnLoop([&] {
      auto bound = ListenUnix(path_);
      ASSERT_TRUE(bound.ok()) << bound.status();
      file_ = std::move(bound->file);
      ASSERT_TRUE(server_->Listen(std::move(bound->fd)).ok());
    });
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "ttrpc.sock";
  SocketFile file_;
};

TEST_P(GoClientTest, IsServed) {
  StartServer();
  Listen();
  GoProgram client("go_echo_client", {path_, GetParam()});
  EXPECT_EQ(client.Output(), "");
  EXPECT_EQ(client.Wait(), 0);
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
  if (GetParam() == std::string("leave")) {
    OnLoop([&] { EXPECT_EQ(service_.cancelled(), 1); });
  }
}

INSTANTIATE_TEST_SUITE_P(Checks, GoClientTest,
                         ::testing::Values("echo", "errors", "unknown", "undecodable", "deadline",
                                           "metadata", "big", "too-big", "concurrent",
                                           "out-of-order", "leave"),
                         [](const ::testing::TestParamInfo<const char*>& check) {
                           std::string name = check.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_F(GoClientTest, HearsWhyItIsRefused) {
  StartServer(
      {.authorize = [](const PeerCredentials&) { return absl::PermissionDeniedError("not you"); }});
  Listen();
  GoProgram client("go_echo_client", {path_, "echo"});
  EXPECT_THAT(client.Output(), HasSubstr("PermissionDenied desc = not you"));
  EXPECT_EQ(client.Wait(), 1);
}

// What the Go client asks of the VM service, and fixed answers.
class RecordingVmService : public vmservice::VMService {
 public:
  void CreateVM(std::shared_ptr<ServerCall>, vmservice::CreateVMRequest request,
                Reply<google::protobuf::Empty> reply) override {
    created = std::move(request);
    reply(google::protobuf::Empty());
  }
  void CapabilitiesVM(std::shared_ptr<ServerCall>, google::protobuf::Empty,
                      Reply<vmservice::CapabilitiesVMResponse> reply) override {
    vmservice::CapabilitiesVMResponse response;
    auto* const resource = response.add_supported_resources();
    resource->set_resource(vmservice::CapabilitiesVMResponse::VMNic);
    resource->set_add(true);
    response.add_supported_guest_os(vmservice::CapabilitiesVMResponse::Linux);
    reply(response);
  }
  void InspectVM(std::shared_ptr<ServerCall>, vmservice::InspectVMRequest request,
                 Reply<vmservice::InspectVMResponse> reply) override {
    vmservice::InspectVMResponse response;
    auto& fields = *response.mutable_result()->mutable_struct_value()->mutable_fields();
    fields["query"].set_string_value(request.query());
    fields["limit"].set_number_value(request.recursion_limit());
    fields["list"].mutable_list_value()->add_values()->set_bool_value(true);
    reply(response);
  }
  void PropertiesVM(std::shared_ptr<ServerCall>, vmservice::PropertiesVMRequest request,
                    Reply<vmservice::PropertiesVMResponse> reply) override {
    EXPECT_THAT(request.types(), ElementsAre(vmservice::PropertiesVMRequest::Processor));
    vmservice::PropertiesVMResponse response;
    response.mutable_processor_stats()->set_total_runtime_ns(uint64_t{1} << 63);
    response.set_state(vmservice::Running);
    reply(response);
  }

  vmservice::CreateVMRequest created;
};

TEST_F(GoClientTest, SpeaksTheVmService) {
  StartServer();
  RecordingVmService service;
  OnLoop([&] { ASSERT_TRUE(server_->Register(service).ok()); });
  Listen();
  GoProgram client("go_vm_client", {path_});
  const std::string output = client.Output();
  EXPECT_EQ(client.Wait(), 0);
  EXPECT_EQ(output,
            "{}\n"
            R"({"supported_resources":[{"Add":true,"resource":"VMNic"}],)"
            R"("supported_guest_os":["Linux"]})"
            "\n"
            R"({"result":{"limit":2,"list":[true],"query":"disks/0"}})"
            "\n"
            R"({"processor_stats":{"total_runtime_ns":"9223372036854775808"},"state":"Running"})"
            "\n"
            "rpc error: code = Unimplemented desc = method Quit\n");
  StopServer();

  vmservice::CreateVMRequest expected;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(R"({
    "log_id": "vm-1",
    "config": {
      "memory_config": {"memory_mb": "1099511627776", "allow_overcommit": true,
                        "high_mmio_base_in_mb": 4096},
      "processor_config": {"processor_count": 8, "processor_limit": 50000},
      "devices_config": {
        "scsi_disks": [{"controller": 1, "lun": 2, "host_path": "/disks/ö.vhdx",
                        "type": "SCSI_DISK_TYPE_VHDX", "read_only": true}, {}],
        "nic_config": [{"nic_id": "c1", "mac_address": "12-34-56-78-9A-BC",
                        "tap": {"name": "tap0"}}]
      },
      "serial_config": {"ports": [{"port": 3, "socket_path": "/run/com4"}]},
      "direct_boot": {"kernel_path": "/boot/k", "kernel_cmdline": "quiet"},
      "extra_data": {"bothy.max_processors": "16"},
      "guest_power_actions": {"reset": "RESTART"}
    }})",
                                                          &expected)
                  .ok());
  EXPECT_EQ(service.created.DebugString(), expected.DebugString());
}

// Our client, Go server.
class GoServerTest : public ::testing::Test {
 protected:
  void Start(const std::string& program) {
    server_ = std::make_unique<GoProgram>(program, std::vector<std::string>{path_});
    EXPECT_EQ(server_->Output(), "");  // closed: ready
    auto client = Client::Connect(path_);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "ttrpc.sock";
  std::unique_ptr<GoProgram> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(GoServerTest, Echoes) {
  Start("go_echo_server");
  EchoRequest request;
  request.set_text("grüße");
  request.set_payload(std::string("\0\xff", 2));
  const auto response = EchoClient(*client_).Echo(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), request.text());
  EXPECT_EQ(response->payload(), request.payload());
  EXPECT_EQ(response->timeout_nano(), 0);
}

TEST_F(GoServerTest, Fails) {
  Start("go_echo_server");
  for (int code = 1; code <= 16; ++code) {
    FailRequest request;
    request.set_code(code);
    request.set_message("nö " + std::to_string(code));
    const absl::Status status = EchoClient(*client_).Fail(request).status();
    EXPECT_EQ(status.raw_code(), code);
    EXPECT_EQ(std::string(status.message()), request.message());
  }
}

TEST_F(GoServerTest, KnowsNoOtherServiceOrMethod) {
  Start("go_echo_server");
  google::protobuf::Empty empty;
  EXPECT_EQ(client_->Call("no.Service", "Echo", empty, &empty).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(client_->Call("bothy.testing.Echo", "Nothing", empty, &empty).code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(GoServerTest, SeesDeadlineAndMetadata) {
  Start("go_echo_server");
  const auto response = EchoClient(*client_).Echo(
      {}, {.timeout = std::chrono::hours(1),
           .metadata = {{"trace", "1"}, {"tenant", "b"}, {"tenant", "a"}}});
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_GT(response->timeout_nano(), 0);
  EXPECT_LE(response->timeout_nano(), 3600'000'000'000);
  std::string got;
  for (const auto& pair : response->metadata()) got += pair.key() + "=" + pair.value() + " ";
  EXPECT_EQ(got, "tenant=b tenant=a trace=1 ");
}

TEST_F(GoServerTest, IsNotWaitedForBeyondTheDeadline) {
  Start("go_echo_server");
  EchoClient client(*client_);
  EXPECT_EQ(client.Wait({}, {.timeout = milliseconds(10)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Echo({}).ok());
}

TEST_F(GoServerTest, TakesAndSendsBigMessages) {
  Start("go_echo_server");
  EchoClient client(*client_);
  for (const size_t size : {1 << 16, 1 << 20, (4 << 20) - 1000}) {
    EchoRequest request;
    request.mutable_payload()->assign(size, 'x');
    const auto response = client.Echo(request);
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->payload(), request.payload());
  }
  // This server sends what it shouldn't; the answer is lost, the connection isn't.
  FillRequest fill;
  fill.set_size(5 << 20);
  EXPECT_EQ(client.Fill(fill).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(client.Echo({}).ok());
}

TEST_F(GoServerTest, ServesManyThreads) {
  Start("go_echo_server");
  EchoClient client(*client_);
  std::vector<std::thread> threads;
  threads.reserve(16);
  std::atomic<int> wrong = 0;
  for (int thread = 0; thread < 16; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        EchoRequest request;
        request.set_text(std::to_string(thread) + "/" + std::to_string(i));
        const auto response = client.Echo(request);
        if (!response.ok() || response->text() != request.text()) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(GoServerTest, AnswersAsynchronousCallsOutOfOrder) {
  Start("go_echo_server");
  EchoClient client(*client_);
  std::latch answered(32);
  for (int i = 0; i < 32; ++i) {
    client.WaitAsync({}, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_TRUE(response.ok()) << response.status();
      answered.count_down();
    });
  }
  for (int released = 0; released < 32;) {
    const auto response = client.Release({});
    ASSERT_TRUE(response.ok()) << response.status();
    released += response->released();
  }
  answered.wait();
}

TEST_F(GoServerTest, ThatDiesIsUnavailable) {
  Start("go_echo_server");
  EchoClient client(*client_);
  std::latch answered(1);
  client.WaitAsync({}, {}, [&](const absl::StatusOr<EchoResponse>& response) {
    EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
    answered.count_down();
  });
  ASSERT_TRUE(client.Echo({}).ok());
  server_.reset();
  answered.wait();
  EXPECT_EQ(client.Echo({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(GoServerTest, SpeaksTheVmService) {
  Start("go_vm_server");
  vmservice::VMClient vm(*client_);
  const std::string json =
      R"({"config":{"memory_config":{"memory_mb":"512"},"direct_boot":{"kernel_path":"/boot/k"},)"
      R"("extra_data":{"a":"b"}},"log_id":"vm-1"})";
  vmservice::CreateVMRequest request;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &request).ok());
  EXPECT_EQ(vm.CreateVM(request).status(), absl::FailedPreconditionError(json));

  vmservice::InspectVMRequest inspect;
  inspect.set_query("disks");
  const auto node = vm.InspectVM(inspect);
  ASSERT_TRUE(node.ok()) << node.status();
  const auto& fields = node->result().struct_value().fields();
  EXPECT_EQ(fields.at("request").string_value(), R"({"query":"disks"})");
  EXPECT_EQ(fields.at("null").kind_case(), google::protobuf::Value::kNullValue);
  EXPECT_EQ(fields.at("number").number_value(), 1.5);

  const auto properties = vm.PropertiesVM({});
  ASSERT_TRUE(properties.ok()) << properties.status();
  EXPECT_EQ(properties->memory_stats().working_set_bytes(), uint64_t{1} << 63);
  EXPECT_EQ(properties->state(), vmservice::Halted);
  EXPECT_EQ(properties->halt_reason(), "reset");
}

}  // namespace
}  // namespace bothy::ttrpc
