// Each verb against a service in this process: what it sends, prints and exits with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>

#include "cmd/bothyctl/json_form.h"
#include "support/testing/test_folder.h"
#include "tests/bothyctl/child.h"
#include "tests/bothyctl/fake_guest_ports.h"
#include "tests/bothyctl/fake_vm_service.h"
#include "ttrpc/server.h"
#include "ttrpc/unix_socket.h"

namespace bothy::bothyctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// What a program writes to take a screen of its own, and to give it back.
constexpr char kEnterScreen[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeaveScreen[] = "\x1b[?25h\x1b[?1049l";

struct Result {
  int status;
  std::string output;
  std::string error_output;
};

class VerbsTest : public ::testing::Test {
 protected:
  VerbsTest() {
    thread_.loop().PostAndWait([&] {
      service_ = std::make_unique<FakeVmService>(
          thread_.loop(), [&](const std::string& call) { calls_.push_back(call); }, [] {});
      server_ = ttrpc::Server::Create(thread_.loop(), {}).value();
      EXPECT_TRUE(server_->Register(*service_).ok());
      auto socket = ttrpc::ListenUnix(address_);
      EXPECT_TRUE(socket.ok()) << socket.status();
      socket_file_ = std::move(socket->file);
      EXPECT_TRUE(server_->Listen(std::move(socket->fd)).ok());
    });
  }
  ~VerbsTest() override {
    thread_.loop().PostAndWait([&] {
      server_.reset();
      service_.reset();
    });
  }

  static Result RunAlone(std::vector<std::string> words, const std::string& input = "",
                         std::map<std::string, std::string> environment = {}) {
    words.insert(words.begin(), BOTHYCTL);
    environment.emplace("BOTHY_ADDRESS", "");
    Child child(words, {.environment = std::move(environment)});
    child.Type(input);
    child.CloseInput();
    const int status = child.AwaitEnd();
    return {status, child.output(), child.error_output()};
  }
  // With --address.
  Result Run(std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.begin(), {"--address", address_});
    return RunAlone(std::move(words), input);
  }
  void RunOk(const std::vector<std::string>& words, const std::string& output = "") {
    const Result result = Run(words);
    EXPECT_EQ(result.status, 0) << words[0];
    EXPECT_EQ(result.output, output) << words[0];
    EXPECT_EQ(result.error_output, "") << words[0];
  }

  // Runs `see` where the service may be looked at.
  void Look(const std::function<void(FakeVmService&)>& see) {
    thread_.loop().PostAndWait([&] { see(*service_); });
  }
  std::vector<std::string> TakeCalls() {
    std::vector<std::string> calls;
    thread_.loop().PostAndWait([&] { calls.swap(calls_); });
    return calls;
  }

  std::string File(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

  const TestFolder folder_;
  const std::string address_ = folder_ / "vm.sock";
  LoopThread thread_{"server"};
  std::vector<std::string> calls_;  // loop thread
  std::unique_ptr<FakeVmService> service_;
  std::unique_ptr<ttrpc::Server> server_;
  ttrpc::SocketFile socket_file_;
};

TEST_F(VerbsTest, WalkThroughAVmsLife) {
  RunOk({"create", "--kernel", "/k", "--cpus", "2", "--log-id", "vm1"});
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.create_request().log_id(), "vm1");
    EXPECT_EQ(service.create_request().config().processor_config().processor_count(), 2U);
    EXPECT_EQ(service.create_request().config().serial_config().ports_size(), 0);
  });
  RunOk({"resume"});
  RunOk({"pause"});
  RunOk({"resume", "--json"}, "{}\n");
  RunOk({"teardown"});
  RunOk({"quit"});
  EXPECT_THAT(TakeCalls(),
              ElementsAre("CreateVM", "ResumeVM", "PauseVM", "ResumeVM", "TeardownVM", "Quit"));
}

TEST_F(VerbsTest, CreateTakesItsConfigurationFromStandardInput) {
  const Result result = Run({"create", "--config", "-", "--memory", "1G"},
                            R"({"directBoot": {"kernelPath": "/k"}, "memory_config": {}})");
  EXPECT_EQ(result.status, 0) << result.error_output;
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.create_request().config().direct_boot().kernel_path(), "/k");
    EXPECT_EQ(service.create_request().config().memory_config().memory_mb(), 1024U);
    EXPECT_FALSE(service.create_request().config().memory_config().allow_overcommit());
  });
}

TEST_F(VerbsTest, ErrorsNameCallStatusAndField) {
  const Result refused = Run({"create", "--cmdline", "refuse:config.serial_config.ports[1].port"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_EQ(refused.output, "");
  EXPECT_EQ(refused.error_output,
            "bothyctl: CreateVM: InvalidArgument: config.serial_config.ports[1].port: refused\n");
  EXPECT_EQ(Run({"resume"}).error_output,
            "bothyctl: ResumeVM: FailedPrecondition: nothing to resume\n");
}

TEST_F(VerbsTest, ErrorsOfThisSideNameTheFile) {
  const Result missing = Run({"create", "--config", folder_ / "none.json"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.error_output, StartsWith("bothyctl: create: NotFound: "));
  EXPECT_THAT(missing.error_output, HasSubstr("none.json"));
  const Result broken = Run({"create", "--config", File("broken.json", "{\n\n\"x\": }")});
  EXPECT_EQ(broken.status, 1);
  EXPECT_THAT(broken.error_output, StartsWith("bothyctl: create: InvalidArgument: "));
  EXPECT_EQ(std::count(broken.error_output.begin(), broken.error_output.end(), '\n'), 1);
  EXPECT_THAT(TakeCalls(), ElementsAre());
}

TEST_F(VerbsTest, ErrorsOfTheConnectionNameTheSocket) {
  const Result nobody = RunAlone({"-a", folder_ / "none.sock", "pause"});
  EXPECT_EQ(nobody.status, 1);
  EXPECT_THAT(nobody.error_output, StartsWith("bothyctl: connect: NotFound: "));
  EXPECT_THAT(nobody.error_output, HasSubstr("none.sock"));
  const Result nowhere = RunAlone({"pause"});
  EXPECT_EQ(nowhere.status, 2);
  EXPECT_EQ(nowhere.error_output,
            "bothyctl: which server? Give --address PATH or set BOTHY_ADDRESS\n");
}

TEST_F(VerbsTest, MisuseExitsWith2AndSaysWhereToRead) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"fly"},
                                             {"--fly"},
                                             {"modify", "time"},
                                             {"socket"},
                                             {"create", "--memory", "1.5G"},
                                             {"properties", "colour"},
                                             {"--timeout", "soon", "pause"},
                                             {"modify"},
                                             {"modify", "--request", "x", "memory", "add", "1"},
                                             {"create", "--serial", "0=-"}}) {
    const Result result = Run(words);
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.error_output, StartsWith("bothyctl: "));
    EXPECT_EQ(std::count(result.error_output.begin(), result.error_output.end(), '\n'), 1)
        << result.error_output;
  }
  EXPECT_THAT(Run({"modify", "time"}).error_output, HasSubstr("(see bothyctl modify --help)"));
  EXPECT_THAT(TakeCalls(), ElementsAre());
}

TEST_F(VerbsTest, FindTheServerInTheEnvironment) {
  const Result result = RunAlone({"capabilities"}, "", {{"BOTHY_ADDRESS", address_}});
  EXPECT_EQ(result.status, 0) << result.error_output;
}

TEST_F(VerbsTest, CapabilitiesIsATable) {
  RunOk({"capabilities"},
        "resource  add  remove  update\n"
        "scsi      yes  yes     no\n"
        "plan9     no   no      no\n"
        "guests: Linux\n");
  const Result json = Run({"capabilities", "--json"});
  EXPECT_EQ(json.status, 0);
  ::vmservice::CapabilitiesVMResponse response;
  ASSERT_TRUE(ParseJson(json.output, &response).ok()) << json.output;
  EXPECT_TRUE(response.supported_resources(0).add());
  EXPECT_THAT(json.output, HasSubstr("\"supported_guest_os\""));
}

TEST_F(VerbsTest, PropertiesAreInWordsAndMebibytes) {
  RunOk({"properties"},
        "state             no VM\n"
        "memory assigned   512 MiB\n"
        "memory resident   100.5 MiB\n"
        "memory reserved   0 MiB\n"
        "memory available  0 MiB\n"
        "processor time    1.500 s\n");
  RunOk({"create"});
  RunOk({"properties", "processor"},
        "state           paused\n"
        "processor time  1.500 s\n");
  RunOk({"teardown"});
  RunOk({"create", "--cmdline", "reset"});
  RunOk({"resume"});
  EXPECT_THAT(Run({"properties"}).output, StartsWith("state             halted: reset\n"));
  EXPECT_THAT(Run({"properties", "--json"}).output, HasSubstr("\"state\": \"Halted\""));
}

TEST_F(VerbsTest, WaitTellsHowItEnded) {
  RunOk({"create", "--cmdline", "poweroff"});
  RunOk({"resume"});
  RunOk({"wait"}, "halted: power-off\n");
  RunOk({"wait", "--json"}, "{\"state\": \"halted\", \"halt_reason\": \"power-off\"}\n");
}

TEST_F(VerbsTest, WaitGivesUpAtItsTimeout) {
  RunOk({"create"});
  const Result result = Run({"wait", "--timeout", "10ms"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.error_output, StartsWith("bothyctl: WaitVM: DeadlineExceeded: "));
}

TEST_F(VerbsTest, InspectPrintsTheTree) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"com1": null, "vcpus": 2})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  RunOk({"inspect", "chipset", "--depth", "3"}, "com1/\nvcpus: 2\n");
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.inspect_request().query(), "chipset");
    EXPECT_EQ(service.inspect_request().recursion_limit(), 3U);
  });
  const Result json = Run({"inspect", "--depth", "all", "--json"});
  google::protobuf::Value parsed;
  ASSERT_TRUE(ParseJson(json.output, &parsed).ok()) << json.output;
  EXPECT_EQ(parsed.struct_value().fields().at("vcpus").number_value(), 2);
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.inspect_request().query(), "");
    EXPECT_EQ(service.inspect_request().recursion_limit(), 0xffffffffU);
  });
}

TEST_F(VerbsTest, InspectGoesOnUntilItIsInterrupted) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"vcpus": 2})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  Child child({BOTHYCTL, "-a", address_, "inspect", "vm", "--watch", "--delay", "1ms"});
  child.AwaitOutput("vcpus: 2\n\nvcpus: 2\n\n");
  // What is shown is what there is then.
  ASSERT_TRUE(ParseJson(R"({"vcpus": 3})", &tree).ok());
  Look([&](FakeVmService& service) {
    EXPECT_EQ(service.inspect_request().query(), "vm");
    service.set_inspect_result(tree);
  });
  child.AwaitOutput("vcpus: 3\n\n");
  child.Signal(SIGINT);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
  EXPECT_EQ(child.error_output(), "");
}

TEST_F(VerbsTest, InspectLooksAsOftenAsItIsTold) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"vcpus": 2})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  RunOk({"inspect", "--watch", "--delay", "1ms", "-n", "2"}, "vcpus: 2\n\nvcpus: 2\n\n");
  const Result once = Run({"inspect", "--json"});
  RunOk({"inspect", "--watch", "--delay", "1ms", "--count", "2", "--json"},
        once.output + once.output);
  EXPECT_EQ(Run({"inspect", "--count", "2"}).status, 2);
}

TEST_F(VerbsTest, WatchingEndsWithTheServer) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"vcpus": 2})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  for (const bool terminal : {false, true}) {
    Child child({BOTHYCTL, "-a", address_, "inspect", "--watch", "--delay", "1ms"},
                {.terminal = terminal, .environment = {{"TERM", "xterm"}}});
    child.AwaitOutput("vcpus: 2");
    Look([](FakeVmService& service) {
      service.set_inspect_result(absl::NotFoundError("devices/net0: no such node"));
    });
    EXPECT_EQ(child.AwaitEnd(), 1);
    const std::string line = "bothyctl: InspectVM: NotFound: devices/net0: no such node";
    if (!terminal) {
      EXPECT_EQ(child.error_output(), line + "\n");
    } else {
      // On the screen that was there before, where it stays.
      const size_t left = child.output().find(kLeaveScreen);
      ASSERT_NE(left, std::string::npos) << child.output();
      EXPECT_THAT(child.output().substr(left), HasSubstr("NotFound: devices/net0"));
      EXPECT_TRUE(SameMode(child.Mode(), child.mode_before()));
    }
    Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  }
}

TEST_F(VerbsTest, AScreenIsRedrawnInItsSizeAndPutBack) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"a": 1, "b": 2, "c": 3, "d": {"name": "0123456789"}})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  for (const char* const key : {"q", "\x03"}) {
    Child child({BOTHYCTL, "-a", address_, "inspect", "--watch", "--delay", "1h"},
                {.terminal = true, .environment = {{"TERM", "xterm"}}});
    child.AwaitOutput(kEnterScreen);
    child.AwaitOutput("  name: 0123456789\x1b[K\x1b[J");
    child.Resize(9, 3);
    child.AwaitOutput("a: 1\x1b[K\r\nb: 2\x1b[K\r\n... 3 mor\x1b[K\x1b[J");
    child.AwaitRaw(true);
    child.Type(key);
    EXPECT_EQ(child.AwaitEnd(), 0);
    EXPECT_TRUE(child.output().ends_with(kLeaveScreen)) << child.output();
    EXPECT_TRUE(SameMode(child.Mode(), child.mode_before()));
  }
}

TEST_F(VerbsTest, PathsAreCompletedFromTheServer) {
  google::protobuf::Value tree;
  ASSERT_TRUE(
      ParseJson(R"({"com10": null, "com2": {}, "count": 2, "rtc": null, "co\nx": 1})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  const std::string offered = "chipset/com2/\t\nchipset/com10/\t\nchipset/count\t\n";
  EXPECT_EQ(RunAlone({"__complete", "-a", address_, "inspect", "chipset/co"}).output, offered);
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.inspect_request().query(), "chipset/");
    EXPECT_EQ(service.inspect_request().recursion_limit(), 0U);
  });
  // However it is told which server.
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"inspect", "--address", address_, "r"},
                                             {"--address=" + address_, "inspect", "r"},
                                             {"-a" + address_, "inspect", "r"},
                                             {"-a", "~/vm.sock", "inspect", "r"}}) {
    std::vector<std::string> all = {"__complete"};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_EQ(RunAlone(all, "", {{"HOME", folder_ / ""}}).output, "rtc/\t\n") << words[0];
  }
  EXPECT_EQ(RunAlone({"__complete", "inspect", "r"}, "", {{"BOTHY_ADDRESS", address_}}).output,
            "rtc/\t\n");
  // Without one there is nothing to offer, and nothing to complain of.
  for (const std::string& nobody : {std::string(), folder_ / "nobody"}) {
    const Result nothing =
        RunAlone({"__complete", "inspect", "r"}, "", {{"BOTHY_ADDRESS", nobody}});
    EXPECT_EQ(nothing.output + nothing.error_output, "");
    EXPECT_EQ(nothing.status, 0);
  }
}

TEST_F(VerbsTest, BashGetsPathsFromTheServer) {
  google::protobuf::Value tree;
  ASSERT_TRUE(ParseJson(R"({"com1": null, "rtc": null, "runs": 2})", &tree).ok());
  Look([&](FakeVmService& service) { service.set_inspect_result(tree); });
  Child bash({"/bin/bash", "-c",
              "source <(\"$0\" completion bash)\n"
              "compopt() { echo \"$@\"; }\n"
              "COMP_WORDS=(\"$0\" -a \"$1\" inspect chipset/r) COMP_CWORD=4\n"
              "_bothyctl\n"
              "printf '%s\\n' \"${COMPREPLY[@]}\"",
              BOTHYCTL, address_});
  EXPECT_EQ(bash.AwaitEnd(), 0);
  EXPECT_EQ(bash.output(), "-o nospace\nchipset/rtc/\nchipset/runs\n") << bash.error_output();
}

TEST_F(VerbsTest, ConnectAndForwardAskTheServerForThePath) {
  google::protobuf::Value path;
  path.set_string_value(folder_ / "vsock");
  Look([&](FakeVmService& service) { service.set_inspect_result(path); });
  FakeGuestPorts ports(path.string_value());
  {
    Child connect({BOTHYCTL, "-a", address_, "connect", "5000"});
    Say(ports.Accept("CONNECT 5000\n"), "OK 1\nhello\n");
    EXPECT_EQ(connect.AwaitEnd(), 0) << connect.error_output();
    EXPECT_EQ(connect.output(), "hello\n");
  }
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.inspect_request().query(), "devices/vsock0/path");
  });
  Child forward({BOTHYCTL, "-a", address_, "forward", "0:22"});
  forward.AwaitOutput("listening on 127.0.0.1:");
  forward.AwaitOutput("\n");
  const std::string port = forward.output().substr(forward.output().rfind(':') + 1);
  const UniqueFd client = ConnectTcp(static_cast<uint16_t>(std::stoi(port)));
  Say(ports.Accept("CONNECT 22\n"), "OK 1\nhello\n");
  EXPECT_EQ(HearEnd(client), "hello\n");

  // A VM without one, and no VM at all.
  Look([&](FakeVmService& service) {
    path.set_string_value("");
    service.set_inspect_result(path);
  });
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"connect", "5000"}, {"forward", "0:22"}}) {
    const Result without = Run(words);
    EXPECT_EQ(without.status, 1);
    EXPECT_THAT(without.error_output,
                StartsWith("bothyctl: hvsocket_config.path: FailedPrecondition: "));
  }
  Look([](FakeVmService& service) {
    service.set_inspect_result(absl::NotFoundError("devices/vsock0: no such node"));
  });
  EXPECT_EQ(Run({"connect", "5000"}).error_output,
            "bothyctl: InspectVM: NotFound: devices/vsock0: no such node\n");
}

TEST_F(VerbsTest, CreateTakesThePathOfItsSockets) {
  RunOk({"create", "--kernel", "/k", "--vsock", folder_ / "vsock"});
  Look([&](FakeVmService& service) {
    EXPECT_EQ(service.create_request().config().hvsocket_config().path(),
              std::string(folder_ / "vsock"));
  });
}

TEST_F(VerbsTest, ModifySendsEachResource) {
  const auto expect = [&](const std::vector<std::string>& words, const std::string& json) {
    std::vector<std::string> all = {"modify"};
    all.insert(all.end(), words.begin(), words.end());
    RunOk(all);
    ::vmservice::ModifyResourceRequest expected;
    ASSERT_TRUE(ParseJson(json, &expected).ok()) << json;
    Look([&](FakeVmService& service) {
      EXPECT_EQ(service.modify_request().DebugString(), expected.DebugString()) << words[0];
    });
  };
  expect({"memory", "add", "1G"}, R"({"type": "ADD", "memory": {"memory_mb": 1024}})");
  expect({"memory", "update", "512"}, R"({"type": "UPDATE", "memory": {"memory_mb": 512}})");
  expect({"processor", "remove", "0"},
         R"({"type": "REMOVE", "processor": {"processor_index": 0}})");
  expect({"processor-config", "--weight", "200", "--limit", "50000"},
         R"({"type": "UPDATE", "processor_config": {"processor_weight": 200,
                                                    "processor_limit": 50000}})");
  expect({"scsi-disk", "add", "1:2", "/d.VHDX", "--read-only"},
         R"({"type": "ADD", "scsi_disk": {"controller": 1, "lun": 2, "host_path": "/d.VHDX",
                                          "type": "SCSI_DISK_TYPE_VHDX", "read_only": true}})");
  expect({"scsi-disk", "remove", "0:63"}, R"({"type": "REMOVE", "scsi_disk": {"lun": 63}})");
  // By its place alone; what else is said has to fit the disk that is there, so nothing is guessed.
  expect({"scsi-disk", "remove", "0:1", "/d.vhdx"},
         R"({"type": "REMOVE", "scsi_disk": {"lun": 1, "host_path": "/d.vhdx"}})");
  expect({"scsi-disk", "update", "0:1", "/d.img", "--type", "vhdx"},
         R"({"type": "UPDATE", "scsi_disk": {"lun": 1, "host_path": "/d.img",
                                             "type": "SCSI_DISK_TYPE_VHDX"}})");
  expect({"vpmem-disk", "remove", "/root.img"},
         R"({"type": "REMOVE", "vpmem_disk": {"host_path": "/root.img"}})");
  expect({"vpmem-disk", "add", "/root.img"},
         R"({"type": "ADD", "vpmem_disk": {"host_path": "/root.img",
                                           "type": "SCSI_DISK_TYPE_PHYSICAL"}})");
  for (const std::string mac : {"12-34-56-78-9A-BC", "12:34:56:78:9A:BC"}) {
    expect({"nic", "update", "guid", "--tap", "tap0", "--mac", mac},
           R"({"type": "UPDATE", "nic_config": {"nic_id": "guid", "tap": {"name": "tap0"},
                                                "mac_address": "12-34-56-78-9A-BC"}})");
  }
  expect({"device", "add", "0000:03:00.0"},
         R"({"type": "ADD", "windows_device": {"instance_id": "0000:03:00.0"}})");
  const std::string json = R"({"type": "UPDATE", "memory": {"memory_mb": "7"}})";
  expect({"--request", File("change.json", json)}, json);
}

TEST_F(VerbsTest, SocketTakesPortsAndServiceIds) {
  RunOk({"socket", "add", "5000", "/l.sock"});
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.socket_request().vsock_listen().port(), 5000U);
    EXPECT_EQ(service.socket_request().vsock_listen().listener_path(), "/l.sock");
  });
  RunOk({"socket", "remove", "00001388-facb-11e6-bd58-64006a7986d3"});
  Look([](FakeVmService& service) {
    EXPECT_EQ(service.socket_request().type(), ::vmservice::REMOVE);
    EXPECT_EQ(service.socket_request().hvsocket_list().service_id(),
              "00001388-facb-11e6-bd58-64006a7986d3");
  });
}

TEST_F(VerbsTest, HelpIsThereForEveryVerb) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--help"}, {"run", "-h"}, {"modify", "memory", "--help"}, {"completion", "--help"}}) {
    const Result result = RunAlone(words);
    EXPECT_EQ(result.status, 0);
    EXPECT_THAT(result.output, HasSubstr("Usage: bothyctl"));
    EXPECT_THAT(result.output, HasSubstr("Examples:"));
  }
  EXPECT_THAT(RunAlone({"modify", "memory", "--help"}).output,
              HasSubstr("Usage: bothyctl modify memory "));
  EXPECT_THAT(RunAlone({"--version"}).output, ::testing::MatchesRegex("bothyctl [0-9.]+\n"));
}

TEST_F(VerbsTest, AnOutputThatTakesNothingIsAnError) {
  Child child({"sh", "-c", "exec \"$0\" --help >/dev/full", BOTHYCTL});
  EXPECT_EQ(child.AwaitEnd(), 1);
  EXPECT_EQ(child.error_output(), "bothyctl: standard output: No space left on device\n");
}

TEST_F(VerbsTest, ColoursAreForTerminals) {
  Child coloured({BOTHYCTL, "pause"},
                 {.terminal = true, .environment = {{"TERM", "xterm"}, {"BOTHY_ADDRESS", ""}}});
  EXPECT_EQ(coloured.AwaitEnd(), 2);
  EXPECT_THAT(coloured.output(), StartsWith("\033[1;31mbothyctl:\033[0m "));
  Child plain({BOTHYCTL, "pause"},
              {.terminal = true,
               .environment = {{"TERM", "xterm"}, {"NO_COLOR", "1"}, {"BOTHY_ADDRESS", ""}}});
  EXPECT_EQ(plain.AwaitEnd(), 2);
  EXPECT_THAT(plain.output(), StartsWith("bothyctl: "));
}

// What bash offers for a line, with the script as users load it.
std::vector<std::string> Bash(const std::string& line) {
  const std::string script = R"(
    compopt() { :; }  # knows only completions that readline has asked for
    source <("$0" completion bash)
    COMP_LINE=$1; COMP_POINT=${#1}
    # As readline cuts it.
    words=$(sed 's/[=:]/ & /g' <<<"$1.")
    read -ra COMP_WORDS <<<"$words"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMP_WORDS[COMP_CWORD]=${COMP_WORDS[COMP_CWORD]%.}
    COMP_WORDS[0]=$0
    _bothyctl
    printf '%s\n' "${COMPREPLY[@]}")";
  Child child({"bash", "-c", script, BOTHYCTL, line});
  EXPECT_EQ(child.AwaitEnd(), 0) << child.error_output();
  EXPECT_EQ(child.error_output(), "");
  std::vector<std::string> offered;
  std::istringstream lines(child.output());
  for (std::string word; std::getline(lines, word);) offered.push_back(word);
  return offered;
}

TEST_F(VerbsTest, BashCompletes) {
  EXPECT_THAT(Bash("bothyctl pa"), ElementsAre("pause"));
  EXPECT_THAT(Bash("bothyctl modify memory "), ElementsAre("add", "remove", "update"));
  EXPECT_THAT(Bash("bothyctl run --on-crash "), ElementsAre("halt", "restart"));
  // Readline replaces only what comes after the "=".
  EXPECT_THAT(Bash("bothyctl run --on-crash=r"), ElementsAre("restart"));
  File("kernel-image", "");
  const std::string begin = folder_ / "kern";
  EXPECT_THAT(Bash("bothyctl run --kernel " + begin), ElementsAre(begin + "el-image"));
  EXPECT_THAT(Bash("bothyctl run --kernel=" + begin), ElementsAre(begin + "el-image"));
  EXPECT_THAT(Bash("bothyctl run --serial 0=" + begin), ElementsAre(begin + "el-image"));
}

}  // namespace
}  // namespace bothy::bothyctl
