// Network cards as stock guests meet them, over the kernel's data path and our own.
#include "tests/integration/net_lab.h"

#include <sched.h>

#include <csignal>
#include <future>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "support/check.h"
#include "tests/integration/name_server.h"
#include "tests/integration/program.h"

namespace bothy::integration {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// "off": our own path; "on": vhost-net.
class DataPathLabTest : public NetLabTest, public testing::WithParamInterface<std::string> {
 protected:
  // A guest whose cards, by number, take the path under test.
  wire::CreateVMRequest Request(const GuestVm& guest, const std::vector<uint8_t>& numbers) {
    wire::CreateVMRequest request = guest.Request();
    for (const uint8_t number : numbers) SetKey(request, number, "vhost", GetParam());
    return request;
  }
};

INSTANTIATE_TEST_SUITE_P(Vhost, DataPathLabTest, testing::Values("off", "on"),
                         [](const auto& path) { return path.param; });

TEST_P(DataPathLabTest, CarriesEverythingBothWays) {
  MakeBridge("br0", "10.1.0.1/24");
  (void)Host("ip link set br0 mtu 9000; ip addr add fd01::1/64 dev br0 nodad");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  wire::NICConfig nic = SwitchNic(1, "br0");
  nic.set_port_id("the-port");
  Add(request, nic);
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  EXPECT_THAT(Host("ip link show type tun"), HasSubstr("alias the-port"));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24", "fd01::2/64"});
  EXPECT_EQ(guest.Run("cat /sys/class/net/" + card + "/mtu"), "9000");

  (void)guest.Run("ping -c 3 -W 20 10.1.0.1; ping -6 -c 3 -W 20 fd01::1");
  (void)guest.Run("ping -c 2 -W 20 -s 8900 10.1.0.1");
  (void)Host("busybox ping -c 3 -W 20 10.1.0.2 && busybox ping -c 2 -W 20 -s 8900 10.1.0.2");

  auto iperf = std::async(std::launch::async, [] { return Host("iperf3 -s -B 10.1.0.1 -1"); });
  (void)guest.Run("until iperf3 -c 10.1.0.1 -n 50M; do sleep 0.2; done");
  iperf.get();
  const std::string server = guest.Start("iperf3 -s -1");
  (void)Host("until iperf3 -c 10.1.0.2 -n 50M -P 4; do sleep 0.2; done");
  (void)guest.Finish(server);

  const std::string facts = guest.Inspect("devices/net0");
  EXPECT_THAT(facts, HasSubstr(GetParam() == "on" ? "\"data_path\":\"vhost-net\""
                                                  : "\"data_path\":\"own\""));
  EXPECT_THAT(facts, HasSubstr("\"link_up\":true"));
  // Both paths' frames are counted. (A client of iperf3's leaves when the last byte is in its
  // socket.)
  for (const std::string direction : {"sent", "received"}) {
    SCOPED_TRACE(direction);
    EXPECT_GT(std::stod(guest.Inspect("devices/net0/card/backend/" + direction + "_bytes")), 30e6);
    EXPECT_GT(std::stod(guest.Inspect("devices/net0/card/backend/" + direction + "_frames")), 100);
  }
  EXPECT_THAT(facts, HasSubstr("\"tso4\":true"));
  EXPECT_THAT(facts, HasSubstr(" of bridge br0"));
  guest.End();
  EXPECT_EQ(Taps(), "");
}

TEST_P(DataPathLabTest, GuestsOfOneSwitchMeetAndOthersDoNot) {
  MakeBridge("br0", "10.1.0.1/24");
  MakeBridge("br1", "10.1.1.1/24");
  (void)Host(
      "ip link set br0 mtu 9000; ip link set br1 alias 'Second Switch'; "
      "sysctl -qw net.ipv4.ip_forward=0");
  GuestVm a("a");
  GuestVm b("b");
  GuestVm c("c");
  const auto boot = [&](GuestVm& guest, uint8_t number, const std::string& bridge) {
    wire::CreateVMRequest request = Request(guest, {number});
    Add(request, SwitchNic(number, bridge));
    guest.Boot(request);
  };
  ASSERT_NO_FATAL_FAILURE(boot(a, 1, "br0"));
  ASSERT_NO_FATAL_FAILURE(boot(b, 2, "br0"));
  ASSERT_NO_FATAL_FAILURE(boot(c, 3, "Second Switch"));
  const std::string card = a.SetUp(MacOf(1), {"10.9.0.1/24", "fd09::1/64"});
  const std::string card_of_b = b.SetUp(MacOf(2), {"10.9.0.2/24", "fd09::2/64"});
  (void)c.SetUp(MacOf(3), {"10.9.0.3/24", "fd09::3/64"});
  (void)a.Run("ping -c 3 -W 20 10.9.0.2; ping -6 -c 3 -W 20 fd09::2");
  (void)b.Run("ping -c 3 -W 20 10.9.0.1");
  (void)a.Run("ping -c 2 -W 20 -s 8900 10.9.0.2");
  for (const std::string direction : {"", " -R"}) {
    const std::string server = b.Start("iperf3 -s -1");
    (void)a.Run("until iperf3 -c 10.9.0.2 -n 20M" + direction + "; do sleep 0.2; done");
    (void)b.Finish(server);
  }
  // To a group that only b is in.
  (void)a.Run("ping -6 -c 2 -W 20 ff02::1:ff00:2%" + card);
  // Between those of one VLAN; the others take no part in it.
  const auto join = [](GuestVm& guest, const std::string& name, const std::string& vlan,
                       const std::string& address) {
    (void)guest.Run("modprobe 8021q; ip link add link " + name + " name v" + vlan +
                    " type vlan id " + vlan + "; ip addr add " + address + " dev v" + vlan +
                    "; ip link set v" + vlan + " up");
  };
  join(a, card, "5", "10.5.0.1/24");
  join(b, card_of_b, "5", "10.5.0.2/24");
  (void)a.Run("ping -c 2 -W 20 10.5.0.2");
  join(a, card, "6", "10.6.0.1/24");
  join(b, card_of_b, "7", "10.6.0.2/24");
  // What the other switch's guest doesn't answer it hasn't even been sent.
  (void)a.Run(
      "! ping -c 2 -W 3 10.6.0.2 && ! ping -c 2 -W 3 10.9.0.3 && "
      "! ping -6 -c 2 -W 3 fd09::3 && ping -6 -c 2 -W 20 ff02::1%" +
      card);
  EXPECT_EQ(c.Run("ip neigh | grep -c 02:00:00:00:00:01 || true"), "0");
  const auto learnt = [](const std::string& bridge) {
    return Host("bridge fdb show br " + bridge + " | grep -v permanent");
  };
  EXPECT_THAT(learnt("br0"),
              AllOf(HasSubstr(MacOf(1)), HasSubstr(MacOf(2)), Not(HasSubstr(MacOf(3)))));
  EXPECT_THAT(learnt("br1"),
              AllOf(HasSubstr(MacOf(3)), Not(HasSubstr(MacOf(1))), Not(HasSubstr(MacOf(2)))));
  for (GuestVm* guest : {&a, &b, &c}) guest->End();
  EXPECT_EQ(Taps(), "");
}

TEST_P(DataPathLabTest, CardsComeAndGoWhileAnotherIsBusy) {
  MakeBridge("br0", "10.1.0.1/24");
  MakeBridge("br1", "10.1.1.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1, 2});
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  (void)guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  auto iperf = std::async(std::launch::async, [] {
    return HostSucceeds("iperf3 -s -B 10.1.0.1 -1 --idle-timeout 60");
  });
  const std::string load = guest.Start(
      "until iperf3 -c 10.1.0.1 -t 3600; do test -e /tmp/enough && break; sleep 0.2; done");
  const uint64_t rounds = Soaks() ? 200 : 3;
  for (uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    ASSERT_THAT(guest.Modify(wire::ADD, SwitchNic(2, "br1")), IsOk());
    (void)guest.SetUp(MacOf(2), {"10.1.1.2/24"});
    (void)guest.Run("ping -c 1 -W 20 10.1.1.1");
    wire::NICConfig removal;
    removal.set_nic_id(Nic(2).nic_id());
    ASSERT_THAT(guest.Modify(wire::REMOVE, removal), IsOk());
    guest.AwaitNoCard(MacOf(2));
  }
  EXPECT_THAT(guest.Modify(wire::ADD, SwitchNic(1, "br1")),
              Fails(StatusCode::kAlreadyExists, HasSubstr("nic_config.nic_id: ")));
  wire::NICConfig same_address = SwitchNic(5, "br1");
  same_address.set_mac_address(Nic(1).mac_address());
  EXPECT_THAT(guest.Modify(wire::ADD, same_address),
              Fails(StatusCode::kAlreadyExists, HasSubstr("nic_config.mac_address: ")));
  EXPECT_THAT(guest.Modify(wire::REMOVE, SwitchNic(2, "br1")),
              Fails(StatusCode::kNotFound, HasSubstr("nic_config.nic_id: ")));
  (void)guest.Run("touch /tmp/enough; killall iperf3");
  (void)guest.Finish(load);
  iperf.get();
  guest.End();
  EXPECT_EQ(Taps(), "");
}

TEST_P(DataPathLabTest, AnUpdateMovesACardToAnotherSwitch) {
  MakeBridge("br0", "10.1.0.1/24");
  MakeBridge("br1", "10.1.1.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24", "10.1.1.2/24"});
  (void)guest.Run("ping -c 1 -W 20 10.1.0.1");
  const std::string carrier = "/sys/class/net/" + card + "/carrier_down_count";
  const std::string before = guest.Run("cat " + carrier);
  wire::NICConfig update = SwitchNic(1, "br1");
  update.clear_mac_address();
  ASSERT_THAT(guest.Modify(wire::UPDATE, update), IsOk());
  (void)guest.Run("await 'test $(cat /sys/class/net/" + card + "/carrier) = 1'");
  EXPECT_EQ(guest.Run("echo $(($(cat " + carrier + ") - " + before + "))"), "1");
  (void)guest.Run("ping -c 1 -W 20 10.1.1.1");
  EXPECT_EQ(Host("ip -o link show master br0"), "");
  EXPECT_EQ(Host("ip -o link show master br1 | wc -l"), "1");
  // One that fails changes nothing.
  EXPECT_THAT(guest.Modify(wire::UPDATE, SwitchNic(1, "none")),
              Fails(StatusCode::kNotFound, HasSubstr("nic_config.switch_id: ")));
  (void)guest.Run("ping -c 1 -W 20 10.1.1.1");
  guest.End();
  EXPECT_EQ(Taps(), "");
}

TEST_P(DataPathLabTest, ConnectionsOutliveAPause) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  (void)guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  auto iperf = std::async(std::launch::async, [] { return Host("iperf3 -s -B 10.1.0.1 -1"); });
  const std::string load = guest.Start("until iperf3 -c 10.1.0.1 -n 200M; do sleep 0.2; done");
  for (int round = 0; round < 10; ++round) {
    ASSERT_THAT(guest.vm().Pause(), IsOk());
    ASSERT_THAT(guest.vm().Resume(), IsOk());
    (void)guest.Run("true");
  }
  (void)guest.Finish(load);
  iperf.get();
  // Nobody spins afterwards.
  AwaitIdle(guest.server().pid());
  guest.End();
}

TEST_P(DataPathLabTest, ASwitchThatIsRemovedIsALinkThatIsDown) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  (void)guest.Run("ping -c 1 -W 20 10.1.0.1");
  (void)Host("ip link del br0");
  (void)guest.Run("await 'test $(cat /sys/class/net/" + card + "/carrier) = 0'");
  AwaitIdle(guest.server().pid());
  MakeBridge("br0", "10.1.0.1/24");
  ASSERT_THAT(guest.Modify(wire::UPDATE, SwitchNic(1, "br0")), IsOk());
  (void)guest.Run("await 'test $(cat /sys/class/net/" + card + "/carrier) = 1'");
  (void)guest.Run("ping -c 1 -W 20 10.1.0.1");
  guest.End();
  EXPECT_EQ(Taps(), "");
}

TEST_P(DataPathLabTest, AServerThatIsKilledLeavesNoTap) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1, 2});
  Add(request, SwitchNic(1, "br0"));
  Add(request, TapNic(2, "tap7"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  EXPECT_THAT(Taps(), HasSubstr("tap7"));
  ASSERT_EQ(::kill(guest.server().pid(), SIGKILL), 0);
  guest.server().AwaitEnd();
  // The kernel closes a killed process's io_uring, which holds files, when it gets round to it.
  AwaitNoTaps();
}

TEST_P(DataPathLabTest, AGuestOfTwoProcessorsUsesTwoQueuePairs) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  request.mutable_config()->mutable_processor_config()->set_processor_count(2);
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  EXPECT_EQ(guest.Run("ls -d /sys/class/net/" + card + "/queues/rx-* | wc -l"), "2");
  EXPECT_EQ(guest.Inspect("devices/net0/card/queue_pairs_in_use"), "2");
  auto iperf = std::async(std::launch::async, [] { return Host("iperf3 -s -B 10.1.0.1 -1"); });
  (void)guest.Run("until iperf3 -c 10.1.0.1 -n 40M -P 4; do sleep 0.2; done");
  iperf.get();
  (void)Host("busybox ping -c 3 -W 20 10.1.0.2");
  guest.End();
}

using SteeringLabTest = NetLabTest;

// On our own path; the kernel's doesn't offer it.
TEST_F(SteeringLabTest, AGuestOfTwoProcessorsSteersItsFlows) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = guest.Request();
  request.mutable_config()->mutable_processor_config()->set_processor_count(2);
  SetKey(request, 1, "vhost", "off");
  SetKey(request, 2, "vhost", "on");
  Add(request, SwitchNic(1, "br0"));
  Add(request, SwitchNic(2, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  const std::string other = guest.AwaitCard(MacOf(2));
  EXPECT_THAT(guest.Run("rss " + card), AllOf(HasSubstr("key 40\n"), HasSubstr("table 0 1 0 1")));
  EXPECT_EQ(guest.Run("rss " + other), "key 0\ntable");
  const std::string device = "devices/net0/card/";
  EXPECT_EQ(guest.Inspect(device + "control_errors"), "0");
  const auto received = [&](const std::string& pair) {
    return std::stod(guest.Inspect(device + "pairs/" + pair + "/received_bytes"));
  };
  for (const std::string queue : {"1", "0"}) {
    SCOPED_TRACE(queue);
    const std::string another = queue == "0" ? "1" : "0";
    (void)guest.Run(absl::StrCat("rss ", card, " ", queue));
    EXPECT_EQ(guest.Inspect(device + "receive_steering"), "\"driver\"");
    EXPECT_THAT(guest.Run("rss " + card),
                HasSubstr(absl::StrCat("table ", queue, " ", queue, " ")));
    const double before = received(queue);
    const double before_of_another = received(another);
    auto iperf = std::async(std::launch::async, [] { return Host("iperf3 -s -B 10.1.0.1 -1"); });
    (void)guest.Run("until iperf3 -c 10.1.0.1 -n 10M -P 4 -R; do sleep 0.2; done");
    iperf.get();
    // What has no ports is in the first queue, whatever the table says.
    EXPECT_GT(received(queue), before + 9e6);
    EXPECT_LT(received(another), before_of_another + 1e6);
  }
  // Both again; and a network that has one queue.
  (void)guest.Run("rss " + card + " 0 1");
  (void)guest.Run("ping -c 3 -W 20 10.1.0.1");
  (void)Host("ip tuntap add tap9 mode tap; ip addr add 10.1.2.1/24 dev tap9");
  ASSERT_THAT(guest.Modify(wire::UPDATE, TapNic(1, "tap9")), IsOk());
  (void)guest.Run("ip addr add 10.1.2.2/24 dev " + card + "; ping -c 3 -W 20 10.1.2.1");
  (void)guest.Run("rss " + card + " 1");
  const double before = received("1");
  (void)guest.Run("ping -c 3 -W 20 10.1.2.1");
  EXPECT_GT(received("1"), before);
  guest.End();
}

// Its driver goes on sending through both pairs, of which the new network has one.
TEST_P(DataPathLabTest, AnUpdateToFewerQueuesLosesNothing) {
  MakeBridge("br0", "10.1.0.1/24");
  (void)Host("ip tuntap add tap9 mode tap; ip addr add 10.1.2.1/24 dev tap9");
  GuestVm guest("guest");
  wire::CreateVMRequest request = Request(guest, {1});
  request.mutable_config()->mutable_processor_config()->set_processor_count(2);
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24", "10.1.2.2/24"});
  const std::string both = "for cpu in 1 2; do taskset $cpu ping -c 3 -W 20 10.1.";
  (void)guest.Run(both + "0.1; done");
  ASSERT_THAT(guest.Modify(wire::UPDATE, TapNic(1, "tap9")), IsOk());
  (void)guest.Run(both + "2.1; done");
  EXPECT_THAT(guest.Inspect("devices/net0/card/data_path"),
              HasSubstr(GetParam() == "on" ? "vhost-net" : "own"));
  // And back.
  ASSERT_THAT(guest.Modify(wire::UPDATE, SwitchNic(1, "br0")), IsOk());
  (void)guest.Run(both + "0.1; done");
  // It was down before the card came.
  EXPECT_THAT(Host("ip -o link show tap9"), Not(HasSubstr("UP")));
  guest.End();
}

using RateLabTest = NetLabTest;

TEST_F(RateLabTest, ACardKeepsToItsLimits) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = guest.Request();
  SetKey(request, 1, "tx_bps", "20000000");
  SetKey(request, 1, "rx_bps", "10000000");
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  (void)guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  // What it had to hold back, and no more than its due got through.
  const auto keeps_to = [&](const std::string& more, const std::string& limit,
                            const std::string& counter, double bits_per_second) {
    SCOPED_TRACE(limit);
    const std::string backend = "devices/net0/card/backend/";
    const auto bits = [&] { return 8 * std::stod(guest.Inspect(backend + counter)); };
    auto iperf = std::async(std::launch::async, [] { return Host("iperf3 -s -B 10.1.0.1 -1"); });
    const double before = bits();
    const absl::Time start = absl::Now();
    (void)guest.Run("until iperf3 -c 10.1.0.1 -n 5M " + more + "; do sleep 0.2; done");
    iperf.get();
    const double passed = bits() - before;
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    // At once after silence, and the frame that goes into debt.
    constexpr double kBurstBits = 3e6;
    EXPECT_LE(passed, bits_per_second * seconds + kBurstBits);
    EXPECT_GE(passed, 30e6);
    EXPECT_GT(std::stod(guest.Inspect(backend + limit + "/held_back")), 0);
  };
  keeps_to("", "send_limit", "sent_bytes", 20e6);
  keeps_to("-R", "receive_limit", "received_bytes", 10e6);
  guest.End();
}

class NicRefusalLabTest : public NetLabTest {
 protected:
  // All that is known of the host's network devices, but for what follows from their ports and taps
  // with some delay.
  static std::string Devices() {
    return Host("ip -o -4 addr; ip -o link | sed -E 's/NO-CARRIER,|,LOWER_UP| qdisc .* mode//g'");
  }
};

TEST_F(NicRefusalLabTest, LeavesTheHostAsItWas) {
  MakeBridge("br0", "10.1.0.1/24");
  MakeBridge("br1", "10.1.1.1/24");
  (void)Host("ip link set br0 alias twice; ip link set br1 alias twice");
  // One that is nobody's but its ports' goes with them.
  (void)Host(
      "ip link set br0 address 02:00:00:00:01:00; ip link set br1 address 02:00:00:00:01:01");
  (void)Host("ip tuntap add tap9 mode tap user 12345; ip tuntap add tap8 mode tap");
  const std::string before = Devices();
  GuestVm guest("guest");
  wire::CreateVMRequest request = guest.Request();
  Add(request, SwitchNic(1, "br0"));
  Add(request, SwitchNic(2, "nowhere"));
  ServerProcess server({.socket_path = "/tmp/nic-refusal.sock", .arguments = {}});
  ASSERT_EQ(server.AwaitReady(), "");
  Vm vm("/tmp/nic-refusal.sock");
  EXPECT_THAT(
      vm.Create(request),
      Fails(StatusCode::kNotFound, HasSubstr("config.devices_config.nic_config[1].switch_id: ")));
  EXPECT_EQ(Host("ip -o link show type tun | wc -l"), "2");
  *request.mutable_config()->mutable_devices_config()->mutable_nic_config(1) =
      SwitchNic(2, "twice");
  EXPECT_THAT(vm.Create(request),
              Fails(StatusCode::kInvalidArgument,
                    HasSubstr("config.devices_config.nic_config[1].switch_id: ")));
  request.mutable_config()->mutable_devices_config()->mutable_nic_config(1)->set_mac_address(
      "01-00-00-00-00-01");
  EXPECT_THAT(vm.Create(request),
              Fails(StatusCode::kInvalidArgument,
                    HasSubstr("config.devices_config.nic_config[1].mac_address: ")));
  EXPECT_EQ(Devices(), before);
  // The first card's tap is brought up before the second card fails.
  *request.mutable_config()->mutable_devices_config()->mutable_nic_config(0) = TapNic(1, "tap8");
  *request.mutable_config()->mutable_devices_config()->mutable_nic_config(1) = TapNic(2, "br0");
  EXPECT_THAT(vm.Create(request),
              Fails(StatusCode::kInvalidArgument,
                    HasSubstr("config.devices_config.nic_config[1].tap.name: ")));
  EXPECT_EQ(Devices(), before);
  // More than there are slots.
  auto* const nics = request.mutable_config()->mutable_devices_config()->mutable_nic_config();
  nics->Clear();
  for (uint8_t number = 1; number <= 17; ++number) Add(request, SwitchNic(number, "br1"));
  EXPECT_THAT(vm.Create(request),
              Fails(StatusCode::kResourceExhausted,
                    HasSubstr("config.devices_config.nic_config[16].nic_id: all 16 ")));
  EXPECT_EQ(Devices(), before);
}

// The network beyond the NAT is the test host's: 10.7.0.1 and fd07::1, with a web server and a name
// server, which calls it web.test.
class UserNetLabTest : public NetLabTest {
 protected:
  UserNetLabTest() {
    // The file that says who the name server is may be another for this test.
    CHECK(::unshare(CLONE_NEWNS) == 0);
    (void)Host("mount --make-rprivate / && echo nameserver 10.7.0.1 >" + (web_ / "resolv.conf") +
               " && touch /etc/resolv.conf && mount --bind " + (web_ / "resolv.conf") +
               " /etc/resolv.conf");
    (void)Host(
        "ip link add far type dummy && ip addr add 10.7.0.1/24 dev far && "
        "ip addr add fd07::1/64 dev far nodad && ip link set far up");
    (void)Host("busybox httpd -p '[::]:8080' -h " + web_.path());
    names_.emplace("10.7.0.1", "web.test", "10.7.0.1");
  }

  ~UserNetLabTest() override { (void)Host("umount /etc/resolv.conf"); }

  TestFolder web_;
  std::optional<NameServer> names_;
};

TEST_F(UserNetLabTest, AnOrdinaryUsersGuestFetchesAndIsReached) {
  const std::string sum =
      Host(std::string("head -c ") + (Soaks() ? "1G" : "64M") + " /dev/urandom >" +
           (web_ / "file") + "; md5sum <" + (web_ / "file"));
  GuestVm guest("guest");
  guest.UseOrdinaryUser();
  wire::CreateVMRequest request = guest.Request();
  wire::NICConfig nic = Nic(1);
  auto* const port = nic.mutable_user()->add_ports();
  port->set_host_port(2222);
  port->set_guest_port(80);
  Add(request, nic);
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  EXPECT_THAT(
      Host("grep -E 'Uid|CapEff' /proc/" + std::to_string(guest.server().pid()) + "/status"),
      AllOf(HasSubstr("65534"), HasSubstr("0000000000000000")));
  const std::string card = guest.AwaitCard(MacOf(1));
  (void)guest.Run("ip link set " + card + " up; udhcpc -n -q -i " + card);
  EXPECT_THAT(guest.Run("ip addr show dev " + card), HasSubstr("10.0.2.15"));
  EXPECT_EQ(guest.Run("wget -q -O - http://web.test:8080/file | md5sum"), sum);
  EXPECT_THAT(guest.Run("nslookup no.such.test 2>&1 || true"), HasSubstr("NXDOMAIN"));
  // By an address that it made from the router's prefix.
  (void)guest.Run("await 'ip -6 addr show dev " + card +
                  " scope global | grep -v tentative | grep -q inet6'");
  (void)Host("echo over-six >" + (web_ / "six"));
  EXPECT_EQ(guest.Run("wget -q -O - 'http://[fd07::1]:8080/six'"), "over-six");
  (void)guest.Run("mkdir /tmp/web; echo it-is-me >/tmp/web/who; httpd -p 80 -h /tmp/web");
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2222/who"), "it-is-me");
  // The host's own loopback isn't the guest's.
  (void)Host("busybox httpd -p 127.0.0.1:8081 -h " + web_.path());
  (void)guest.Run("! wget -q -T 5 -O /dev/null http://10.0.2.2:8081/six");
  // A port can be had once.
  wire::NICConfig second = Nic(2);
  *second.mutable_user() = nic.user();
  EXPECT_THAT(guest.Modify(wire::ADD, second),
              Fails(StatusCode::kAlreadyExists, HasSubstr("nic_config.user")));
  // What takes privileges it hasn't.
  MakeBridge("br0", "10.1.0.1/24");
  EXPECT_THAT(guest.Modify(wire::ADD, SwitchNic(3, "br0")),
              Fails(StatusCode::kPermissionDenied, HasSubstr("nic_config.switch_id: ")));
  EXPECT_THAT(guest.Modify(wire::ADD, TapNic(3, "tap3")),
              Fails(StatusCode::kPermissionDenied, HasSubstr("nic_config.tap")));
  EXPECT_EQ(Taps(), "");
  // Also where anybody may make taps, as under udev.
  (void)Host("chmod 0666 /dev/net/tun; ip tuntap add tap4 mode tap user 12345");
  EXPECT_THAT(guest.Modify(wire::ADD, TapNic(3, "tap3")),
              Fails(StatusCode::kPermissionDenied, HasSubstr("CAP_NET_ADMIN")));
  EXPECT_THAT(guest.Modify(wire::ADD, TapNic(3, "tap4")),
              Fails(StatusCode::kPermissionDenied, HasSubstr("belongs to another user")));
  EXPECT_THAT(Host("ip -o link show tap4"), Not(HasSubstr("UP")));
  guest.End();
}

using LonelyNetLabTest = NetLabTest;

// Nothing but a loopback interface: what the guest asks of the world fails, and what it has is its
// own network and the forwarded port.
TEST_F(LonelyNetLabTest, AHostWithoutANetworkHasNatAllTheSame) {
  GuestVm guest("guest");
  wire::CreateVMRequest request = guest.Request();
  wire::NICConfig nic = Nic(1);
  auto* const port = nic.mutable_user()->add_ports();
  port->set_host_port(2222);
  port->set_guest_port(80);
  Add(request, nic);
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.AwaitCard(MacOf(1));
  (void)guest.Run("ip link set " + card + " up; udhcpc -n -q -i " + card);
  EXPECT_THAT(guest.Run("ip addr show dev " + card), HasSubstr("10.0.2.15"));
  // At once, not after a time-out.
  EXPECT_THAT(guest.Run("nc 10.7.0.1 80 </dev/null 2>&1 || true"), HasSubstr("unreachable"));
  (void)guest.Run("mkdir /tmp/web; echo it-is-me >/tmp/web/who; httpd -p 80 -h /tmp/web");
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2222/who"), "it-is-me");
  AwaitIdle(guest.server().pid());
  guest.End();
}

// From bothyctl's command line to the guest.
TEST_F(UserNetLabTest, CardsOfACommandLine) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  const wire::CreateVMRequest request = guest.Request();
  ASSERT_NO_FATAL_FAILURE(guest.Boot([&](const std::string& socket) {
    const wire::VMConfig& config = request.config();
    const ProgramResult created =
        RunProgram({BOTHY_CLIENT, "--address",
                    socket,       "create",
                    "--kernel",   config.direct_boot().kernel_path(),
                    "--initrd",   config.direct_boot().initrd_path(),
                    "--cmdline",  config.direct_boot().kernel_cmdline(),
                    "--memory",   "256M",
                    "--serial",   "0=" + config.serial_config().ports(0).socket_path(),
                    "--serial",   "1=" + config.serial_config().ports(1).socket_path(),
                    "--nic",      "user,forward=tcp:2226:80,name=to the world",
                    "--nic",      "switch=br0,mac=02:00:00:00:00:02"});
    ASSERT_EQ(created.status, 0) << created.output << created.error_output;
  }));
  (void)guest.SetUp(MacOf(2), {"10.1.0.2/24"});
  (void)guest.Run("ping -c 1 -W 20 10.1.0.1");
  EXPECT_THAT(guest.Inspect("devices/net0"), HasSubstr("\"nic_name\":\"to the world\""));
  // Of the other card only the number is known.
  (void)guest.Run(
      "cd /sys/class/net; for card in *; do "
      "case $(cat $card/address) in 00:00:*|02:00:00:00:00:02) ;; "
      "*) ip link set $card up; udhcpc -n -q -i $card ;; esac; done; "
      "mkdir /tmp/web; echo it-is-me >/tmp/web/who; httpd -p 80 -h /tmp/web");
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2226/who"), "it-is-me");
  guest.End();
}

// Its driver leaves checksums and segmentation to the host, which NAT doesn't take.
TEST_F(UserNetLabTest, ACardMovesFromASwitchToNat) {
  MakeBridge("br0", "10.1.0.1/24");
  GuestVm guest("guest");
  wire::CreateVMRequest request = guest.Request();
  Add(request, SwitchNic(1, "br0"));
  ASSERT_NO_FATAL_FAILURE(guest.Boot(request));
  const std::string card = guest.SetUp(MacOf(1), {"10.1.0.2/24"});
  (void)guest.Run("ping -c 1 -W 20 10.1.0.1");
  wire::NICConfig nat = Nic(1);
  auto* const port = nat.mutable_user()->add_ports();
  port->set_host_port(2223);
  port->set_guest_port(80);
  ASSERT_THAT(guest.Modify(wire::UPDATE, nat), IsOk());
  EXPECT_EQ(Taps(), "");
  const std::string sum = guest.Run("udhcpc -n -q -i " + card +
                                    " >/dev/null 2>&1; mkdir /tmp/web; httpd -p 80 -h /tmp/web; "
                                    "dd if=/dev/urandom of=/tmp/web/file bs=1M count=8 "
                                    "2>/dev/null; md5sum </tmp/web/file");
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2223/file | md5sum"), sum);
  EXPECT_THAT(guest.Inspect("devices/net0/card"), HasSubstr("\"tso4\":true"));
  EXPECT_EQ(guest.Inspect("devices/net0/card/pairs/0/drops/transmit_bad_header"), "0");
  // With another port beside the one it has; and back, when one is taken.
  auto* const more = nat.mutable_user()->add_ports();
  more->set_host_port(2224);
  more->set_guest_port(80);
  ASSERT_THAT(guest.Modify(wire::UPDATE, nat), IsOk());
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2224/file | md5sum"), sum);
  (void)Host("busybox httpd -p 2225 -h /");
  wire::NICConfig taken = nat;
  taken.mutable_user()->mutable_ports(1)->set_host_port(2225);
  EXPECT_THAT(guest.Modify(wire::UPDATE, taken),
              Fails(StatusCode::kAlreadyExists, HasSubstr("nic_config.user")));
  EXPECT_EQ(Host("busybox wget -q -O - http://127.0.0.1:2224/file | md5sum"), sum);
  guest.End();
}

}  // namespace
}  // namespace bothy::integration
