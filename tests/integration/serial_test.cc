// Serial ports at a real server, with a guest that prints and echoes.
#include <sys/stat.h>

#include "tests/integration/server_test.h"
#include "tests/micro/micro_guests.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class SerialTest : public ServerTest {
 protected:
  void Boot(const wire::CreateVMRequest& request) {
    StartServer();
    ASSERT_THAT(vm_->Create(request), IsOk());
    ASSERT_THAT(vm_->Resume(), IsOk());
  }
  [[nodiscard]] wire::CreateVMRequest Puppet() const {
    wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()));
    AddSerial(request, 0, SerialPath());
    return request;
  }
};

TEST_F(SerialTest, TheSocketIsTheServersAloneAndGoesWithTheVm) {
  ASSERT_NO_FATAL_FAILURE(Boot(Puppet()));
  struct stat status {};
  ASSERT_EQ(::stat(SerialPath().c_str(), &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_NE(::stat(SerialPath().c_str(), &status), 0);
}

TEST_F(SerialTest, InputReachesTheGuestAndComesBack) {
  ASSERT_NO_FATAL_FAILURE(Boot(Puppet()));
  SerialClient serial(SerialPath());
  serial.ReadUntil("ready\n");
  std::string text;
  for (int i = 0; i < 50; ++i) text += "ABCDEFGHIJ";
  serial.Send(text);
  EXPECT_EQ(serial.Read(text.size()), text);
}

TEST_F(SerialTest, ANewClientGetsWhatWasPrintedBefore) {
  ASSERT_NO_FATAL_FAILURE(Boot(Puppet()));
  {
    SerialClient first(SerialPath());
    first.ReadUntil("ready\n");
    first.Send("FIRST");
    EXPECT_EQ(first.Read(5), "FIRST");
  }
  SerialClient second(SerialPath());
  EXPECT_EQ(second.Read(11), "ready\nFIRST");
  second.Send("2");
  EXPECT_EQ(second.Read(1), "2");
}

TEST_F(SerialTest, OneClientIsServedAtATime) {
  ASSERT_NO_FATAL_FAILURE(Boot(Puppet()));
  SerialClient first(SerialPath());
  first.ReadUntil("ready\n");
  SerialClient second(SerialPath());
  second.Send("2");
  first.Send("1");
  EXPECT_EQ(first.Read(1), "1");
  first.Close();
  // Only now are the second's bytes taken.
  EXPECT_EQ(second.Read(8), "ready\n12");
}

TEST_F(SerialTest, AClientThatVanishesDoesNotStopTheGuest) {
  wire::CreateVMRequest request =
      DirectBoot(KernelFile(micro::ChatterKernel("the guest has a lot to say\n")));
  AddSerial(request, 0, SerialPath());
  ASSERT_NO_FATAL_FAILURE(Boot(request));
  for (int i = 0; i < 5; ++i) {
    SerialClient serial(SerialPath());
    serial.ReadUntil("a lot to say\n");
    // Closed with output unread: the server's next write fails.
  }
  SerialClient serial(SerialPath());
  EXPECT_THAT(serial.ReadUntil("a lot to say\n"), HasSubstr("the guest has"));
}

TEST_F(SerialTest, AClientThatDoesNotReadDoesNotStopTheGuest) {
  // Prints more than a socket's buffer (208 KiB) and the server's (256 KiB) hold together, then
  // powers off: it must get there.
  std::string text;
  while (text.size() < 500 << 10) text += "0123456789abcde\n";
  micro::MachineCode code(micro::kLoadAddress);
  code.Print(micro::kCom1, text);
  micro::PowerOff(code);
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::Kernel(code)), 8);
  AddSerial(request, 0, SerialPath());
  StartServer();
  ASSERT_THAT(vm_->Create(request), IsOk());
  SerialClient reluctant(SerialPath());
  ASSERT_THAT(vm_->Resume(), IsOk());
  EXPECT_EQ(vm_->HaltReason(), "power-off");
  // It was connected from the beginning and finds that first.
  EXPECT_THAT(reluctant.Read(1000), StartsWith("0123456789abcde\n0123456789abcde\n"));
  ASSERT_THAT(vm_->Teardown(), IsOk());
}

TEST_F(SerialTest, TheServerConnectsWhereSomebodyListens) {
  const UniqueFd listener = ListenOn(SerialPath());
  ASSERT_NO_FATAL_FAILURE(Boot(Puppet()));
  SerialClient serial = SerialClient::Accept(listener);
  EXPECT_EQ(serial.ReadUntil("ready\n"), "ready\n");
  serial.Send("x");
  EXPECT_EQ(serial.Read(1), "x");
  ASSERT_THAT(vm_->Teardown(), IsOk());
  EXPECT_EQ(serial.ReadToEnd(), "");
  struct stat status {};
  EXPECT_EQ(::stat(SerialPath().c_str(), &status), 0) << "the listener's socket is the listener's";
}

TEST_F(SerialTest, TheServerComesBackToAListenerThatDroppedIt) {
  const UniqueFd listener = ListenOn(SerialPath());
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::PuppetKernel()));
  AddSerial(request, 0, SerialPath(), true);
  ASSERT_NO_FATAL_FAILURE(Boot(request));
  {
    SerialClient serial = SerialClient::Accept(listener);
    serial.ReadUntil("ready\n");
  }
  SerialClient again = SerialClient::Accept(listener);
  again.Send("x");
  EXPECT_EQ(again.Read(1), "x");
}

TEST_F(SerialTest, AllFourPortsAreThere) {
  micro::MachineCode code(micro::kLoadAddress);
  code.Print(0x3F8, "one");
  code.Print(0x2F8, "two");
  code.Print(0x3E8, "three");
  code.Print(0x2E8, "four");
  micro::PowerOff(code);
  wire::CreateVMRequest request = DirectBoot(KernelFile(micro::Kernel(code)));
  for (uint32_t port = 0; port < 4; ++port) {
    AddSerial(request, port, folder_ / ("com" + std::to_string(port + 1)));
  }
  ASSERT_NO_FATAL_FAILURE(Boot(request));
  EXPECT_EQ(vm_->HaltReason(), "power-off");
  EXPECT_EQ(SerialClient(folder_ / "com1").Read(3), "one");
  EXPECT_EQ(SerialClient(folder_ / "com2").Read(3), "two");
  EXPECT_EQ(SerialClient(folder_ / "com3").Read(5), "three");
  EXPECT_EQ(SerialClient(folder_ / "com4").Read(4), "four");
}

}  // namespace
}  // namespace bothy::integration
