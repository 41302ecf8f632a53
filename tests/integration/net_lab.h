// NetLabTest: the fixture of tests that give stock guests network cards, each test in a network
// namespace of its own, in which it is the host.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/integration/lab_test.h"

namespace bothy::integration {

// A server with a guest that has an agent. Its logs are shown when the test fails.
class GuestVm {
 public:
  // `name` tells them apart in what a failure shows.
  explicit GuestVm(std::string name);
  ~GuestVm();

  // Its server will be another user's, one without any privileges.
  void UseOrdinaryUser() { ordinary_user_ = true; }

  // A guest of one processor (docs/lab.md says why), to be changed as the test likes.
  [[nodiscard]] wire::CreateVMRequest Request() const;
  // Starts a server, creates the VM, resumes it and waits for its agent.
  void Boot(const wire::CreateVMRequest& request);
  // The same, with `create` to create the VM of Request() on the server of that socket.
  void Boot(const std::function<void(const std::string& socket)>& create);
  absl::Status Modify(wire::ModifyType type, const wire::NICConfig& nic);

  // Runs a shell script in the guest, which must succeed; what it printed, without the last
  // newline.
  std::string Run(const std::string& script);
  // Begins one, and awaits its end.
  std::string Start(const std::string& script);
  std::string Finish(const std::string& id);
  // Waits in the guest until there is a card of that address; its name.
  std::string AwaitCard(const std::string& mac);
  // The same, and gives it addresses ("10.1.0.2/24").
  std::string SetUp(const std::string& mac, const std::vector<std::string>& addresses);
  void AwaitNoCard(const std::string& mac);

  // Part of the state tree: a leaf, as JSON.
  [[nodiscard]] std::string Inspect(const std::string& query);
  // Tears the VM down and ends the server.
  void End();

  [[nodiscard]] Vm& vm() { return *vm_; }
  [[nodiscard]] ServerProcess& server() { return *server_; }

 private:
  [[nodiscard]] ServerOptions Options() const;

  const std::string name_;
  bool ordinary_user_ = false;
  TestFolder folder_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<guest::AgentClient> agent_;
};

class NetLabTest : public ::testing::Test {
 protected:
  NetLabTest();

  // `number` gives a card its identity and its address, 02-00-00-00-00-<number>.
  [[nodiscard]] static wire::NICConfig Nic(uint8_t number);
  [[nodiscard]] static wire::NICConfig SwitchNic(uint8_t number, const std::string& bridge);
  [[nodiscard]] static wire::NICConfig TapNic(uint8_t number, const std::string& tap);
  // As a guest shows it.
  [[nodiscard]] static std::string MacOf(uint8_t number);
  static void Add(wire::CreateVMRequest& request, const wire::NICConfig& nic);
  static void SetKey(wire::CreateVMRequest& request, uint8_t number, const std::string& what,
                     const std::string& value);

  // Runs a shell script on the host, which must succeed; what it printed.
  static std::string Host(const std::string& script);
  static bool HostSucceeds(const std::string& script);
  // A bridge of the host's, up, with an address.
  static void MakeBridge(const std::string& name, const std::string& address);
  // Network devices of the host that are taps.
  static std::string Taps();
  // Waits until there are none.
  static void AwaitNoTaps();
  // Waits for a second in which the process's threads all but sleep.
  static void AwaitIdle(pid_t pid);
};

}  // namespace bothy::integration
