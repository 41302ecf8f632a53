#include "tests/integration/net_lab.h"

#include <google/protobuf/util/json_util.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "support/check.h"
#include "tests/integration/program.h"

namespace bothy::integration {
namespace {

// A CPU that is emulated, on a machine that is busy, takes its time.
constexpr absl::Duration kBoot = absl::Seconds(200);
constexpr absl::Duration kWork = absl::Seconds(300);

std::string WithoutLastNewline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// The guest's name of a card's directory.
std::string FindCard(const std::string& mac) {
  return "grep -lx " + mac + " /sys/class/net/*/address";
}

}  // namespace

GuestVm::GuestVm(std::string name) : name_(std::move(name)) {}

GuestVm::~GuestVm() {
  if (testing::Test::HasFailure() && server_ != nullptr && vm_ != nullptr) {
    SerialClient console(folder_ / "com1.sock");
    (void)vm_->Teardown();
    const std::string log = server_->Log();
    constexpr size_t kShown = 8192;
    std::cerr << name_ << "'s console:\n"
              << console.ReadToEnd() << "\nits server's log:\n"
              << log.substr(log.size() - std::min(log.size(), kShown)) << "\n";
  }
}

wire::CreateVMRequest GuestVm::Request() const {
  wire::CreateVMRequest request = DirectBoot(BOTHY_GUEST_DIR "/vmlinuz", 256);
  request.mutable_config()->mutable_processor_config()->set_processor_count(1);
  auto& boot = *request.mutable_config()->mutable_direct_boot();
  boot.set_initrd_path(BOTHY_GUEST_DIR "/net-initrd.img");
  boot.set_kernel_cmdline("console=ttyS0 quiet panic=-1");
  AddSerial(request, 0, folder_ / "com1.sock");
  AddSerial(request, 1, folder_ / "com2.sock");
  return request;
}

ServerOptions GuestVm::Options() const {
  if (!ordinary_user_) return {.socket_path = folder_ / "vm.sock", .arguments = {}};
  // Who may use KVM is the host's decision, not this test's subject.
  CHECK(::chmod("/dev/kvm", 0666) == 0 && ::chmod(folder_.path().c_str(), 0777) == 0);
  return {.arguments = {"--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=-all",
                        "--bounding-set=-all", "--pdeathsig=KILL", BOTHY_SERVER, "--ttrpc",
                        folder_ / "vm.sock"},
          .program = "/usr/bin/setpriv"};
}

void GuestVm::Boot(const wire::CreateVMRequest& request) {
  Boot([&](const std::string&) { ASSERT_THAT(vm_->Create(request), IsOk()); });
}

void GuestVm::Boot(const std::function<void(const std::string& socket)>& create) {
  server_ = std::make_unique<ServerProcess>(Options());
  ASSERT_EQ(server_->AwaitReady(), "");
  vm_ = std::make_unique<Vm>(folder_ / "vm.sock");
  ASSERT_NO_FATAL_FAILURE(create(folder_ / "vm.sock"));
  ASSERT_THAT(vm_->Resume(), IsOk());
  const auto halted = std::make_shared<UniqueFd>(::eventfd(0, EFD_CLOEXEC));
  agent_ = std::make_unique<guest::AgentClient>(SerialClient(folder_ / "com2.sock").Take(),
                                                UniqueFd(::dup(halted->get())));
  vm_->stub().WaitVMAsync({}, {}, [halted](const auto&) { ::eventfd_write(halted->get(), 1); });
  ASSERT_THAT(agent_->WaitReady(kBoot), IsOk());
}

absl::Status GuestVm::Modify(wire::ModifyType type, const wire::NICConfig& nic) {
  wire::ModifyResourceRequest request;
  request.set_type(type);
  *request.mutable_nic_config() = nic;
  return vm_->stub().ModifyResource(request).status();
}

std::string GuestVm::Run(const std::string& script) { return Finish(Start(script)); }

std::string GuestVm::Start(const std::string& script) {
  const auto id = agent_->Start("set -e; " + script);
  if (!id.ok()) ADD_FAILURE() << name_ << ": " << script << ": " << id.status();
  return id.ok() ? *id : "";
}

std::string GuestVm::Finish(const std::string& id) {
  if (id.empty()) return "";
  const auto result = agent_->Finish(id, kWork);
  if (!result.ok()) {
    ADD_FAILURE() << name_ << ": " << result.status();
    return "";
  }
  EXPECT_EQ(result->status, 0) << name_ << ": " << result->output << result->error_output;
  return WithoutLastNewline(result->output);
}

std::string GuestVm::AwaitCard(const std::string& mac) {
  return Run("await '" + FindCard(mac) + " >/dev/null'; path=$(" + FindCard(mac) +
             "); path=${path%/address}; echo ${path##*/}");
}

std::string GuestVm::SetUp(const std::string& mac, const std::vector<std::string>& addresses) {
  std::string name = AwaitCard(mac);
  for (const std::string& address : addresses) {
    const bool six = address.find(':') != std::string::npos;
    // Without waiting for anybody else to have the same one.
    if (six) (void)Run(absl::StrCat("echo 0 >/proc/sys/net/ipv6/conf/", name, "/accept_dad"));
    (void)Run(absl::StrCat("ip addr add ", address, " dev ", name));
  }
  (void)Run("ip link set " + name + " up");
  return name;
}

void GuestVm::AwaitNoCard(const std::string& mac) {
  (void)Run("await '! " + FindCard(mac) + " >/dev/null'");
}

std::string GuestVm::Inspect(const std::string& query) {
  wire::InspectVMRequest request;
  request.set_query(query);
  request.set_recursion_limit(24);
  const auto answer = vm_->stub().InspectVM(request);
  if (!answer.ok()) {
    ADD_FAILURE() << query << ": " << answer.status();
    return "";
  }
  std::string json;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(answer->result(), &json).ok());
  return json;
}

void GuestVm::End() {
  EXPECT_THAT(vm_->Quit(), IsOk());
  EXPECT_EQ(server_->AwaitEnd(), 0);
  agent_.reset();
  vm_.reset();
}

NetLabTest::NetLabTest() {
  // What the test starts from here on is in there, too.
  CHECK(::unshare(CLONE_NEWNET) == 0);
  (void)Host("ip link set lo up");
}

wire::NICConfig NetLabTest::Nic(uint8_t number) {
  wire::NICConfig nic;
  nic.set_nic_id(absl::StrFormat("3f2504e0-4f89-11d3-9a0c-%012x", number));
  nic.set_mac_address(absl::StrFormat("02-00-00-00-00-%02X", number));
  return nic;
}

wire::NICConfig NetLabTest::SwitchNic(uint8_t number, const std::string& bridge) {
  wire::NICConfig nic = Nic(number);
  nic.set_switch_id(bridge);
  return nic;
}

wire::NICConfig NetLabTest::TapNic(uint8_t number, const std::string& tap) {
  wire::NICConfig nic = Nic(number);
  nic.mutable_tap()->set_name(tap);
  return nic;
}

std::string NetLabTest::MacOf(uint8_t number) {
  return absl::StrFormat("02:00:00:00:00:%02x", number);
}

void NetLabTest::Add(wire::CreateVMRequest& request, const wire::NICConfig& nic) {
  *request.mutable_config()->mutable_devices_config()->add_nic_config() = nic;
}

void NetLabTest::SetKey(wire::CreateVMRequest& request, uint8_t number, const std::string& what,
                        const std::string& value) {
  (*request.mutable_config()
        ->mutable_extra_data())["bothy.nic." + Nic(number).nic_id() + "." + what] = value;
}

std::string NetLabTest::Host(const std::string& script) {
  const ProgramResult result = RunProgram({"/bin/sh", "-ec", script});
  EXPECT_EQ(result.status, 0) << script << "\n" << result.output << result.error_output;
  return WithoutLastNewline(result.output);
}

bool NetLabTest::HostSucceeds(const std::string& script) {
  return RunProgram({"/bin/sh", "-ec", script}).status == 0;
}

void NetLabTest::MakeBridge(const std::string& name, const std::string& address) {
  (void)Host("ip link add " + name + " type bridge && ip addr add " + address + " dev " + name +
             " && ip link set " + name + " up");
}

void NetLabTest::AwaitNoTaps() {
  for (const absl::Time end = absl::Now() + kWork; absl::Now() < end;) {
    if (Taps().empty()) return;
    absl::SleepFor(absl::Milliseconds(20));
  }
  ADD_FAILURE() << "still there: " << Taps();
}

void NetLabTest::AwaitIdle(pid_t pid) {
  // Of 100 a second.
  constexpr int kFewTicks = 30;
  const std::string spent = "awk '{print $14 + $15}' /proc/" + std::to_string(pid) + "/stat";
  int last = 0;
  for (const absl::Time end = absl::Now() + kWork; absl::Now() < end;) {
    const int before = std::stoi(Host(spent));
    absl::SleepFor(absl::Seconds(1));
    last = std::stoi(Host(spent)) - before;
    if (last < kFewTicks) return;
  }
  ADD_FAILURE() << "of the last second it spent " << last << " ticks";
}

std::string NetLabTest::Taps() { return Host("ip -o link show type tun | cut -d: -f2"); }

}  // namespace bothy::integration
