// What looking into a VM with 64 disks costs, whoever asks and the guest:
//
//   bench_inspect [--server BOTHY] [--calls N] [--seconds S]
//
// prints JSON: the 99th percentiles of CapabilitiesVM's and InspectVM's round trips (whole tree;
// calls in turn, paused VM), and how many port accesses a second a guest makes that does nothing
// else, alone and with 100 InspectVM a second.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/arguments.h"
#include "bench/process.h"
#include "tests/micro/micro_guests.h"
#include "ttrpc/client.h"
#include "vmservice.ttrpc.h"

namespace bothy::bench {
namespace {

namespace wire = ::vmservice;

constexpr int kDisks = 64;
constexpr int kIntervals = 6;  // of each kind, in turn
constexpr std::chrono::milliseconds kBetweenCalls{10};

struct Settings {
  std::string server = "build/bin/bothy";
  int calls = 2000;
  double seconds = 1.0;
};

void RequireOk(const absl::Status& status, std::string_view call) {
  if (!status.ok()) Fail(std::string(call) + ": " + std::string(status.message()));
}

class Bench {
 public:
  explicit Bench(const Settings& settings)
      : settings_(settings),
        server_({settings.server, "--ttrpc", folder_.File("vm.sock")}, folder_.File("log")) {
    if (!server_.WaitForEndOfOutput(Clock::now() + std::chrono::seconds(30))) {
      Fail("the server doesn't get ready: " + Tail(folder_.File("log")));
    }
    client_ = Require(ttrpc::Client::Connect(folder_.File("vm.sock")), "connect");
    vm_ = std::make_unique<wire::VMClient>(*client_);
    whole_.set_recursion_limit(std::numeric_limits<uint32_t>::max());
    exits_.set_query("processors/0/exits/port");
  }

  void Create() {
    const std::vector<uint8_t> kernel = micro::ChatterKernel("x");
    std::ofstream(folder_.File("kernel"), std::ios::binary)
        .write(reinterpret_cast<const char*>(kernel.data()),
               static_cast<std::streamsize>(kernel.size()));
    wire::CreateVMRequest request;
    wire::VMConfig& config = *request.mutable_config();
    config.mutable_memory_config()->set_memory_mb(16);
    config.mutable_memory_config()->set_allow_overcommit(true);
    config.mutable_direct_boot()->set_kernel_path(folder_.File("kernel"));
    for (uint32_t lun = 0; lun < kDisks; ++lun) {
      const std::string path = folder_.File("disk" + std::to_string(lun));
      std::ofstream(path, std::ios::binary).seekp((1 << 20) - 1).put('\0');
      auto& disk = *config.mutable_devices_config()->add_scsi_disks();
      disk.set_lun(lun);
      disk.set_host_path(path);
      disk.set_type(wire::SCSI_DISK_TYPE_PHYSICAL);
    }
    RequireOk(vm_->CreateVM(request).status(), "CreateVM");
  }

  void MeasureCalls() {
    std::vector<int64_t> capabilities;
    std::vector<int64_t> inspect;
    for (int i = -settings_.calls / 10; i < settings_.calls; ++i) {
      const int64_t first =
          Time([this] { RequireOk(vm_->CapabilitiesVM({}).status(), "CapabilitiesVM"); });
      const int64_t second =
          Time([this] { RequireOk(vm_->InspectVM(whole_).status(), "InspectVM"); });
      if (i < 0) continue;  // warms up
      capabilities.push_back(first);
      inspect.push_back(second);
    }
    std::printf("{\"capabilities_p99_ns\":%lld,\"inspect_p99_ns\":%lld,\"inspect_bytes\":%zu,",
                static_cast<long long>(Percentile99(capabilities)),
                static_cast<long long>(Percentile99(inspect)),
                Require(vm_->InspectVM(whole_), "InspectVM").ByteSizeLong());
  }

  void MeasureGuest() {
    RequireOk(vm_->ResumeVM({}).status(), "ResumeVM");
    double alone = 0;
    double looked_at = 0;
    for (int i = 0; i < kIntervals; ++i) {
      alone += Accesses(false);
      looked_at += Accesses(true);
    }
    std::printf("\"alone\":%.0f,\"looked_at\":%.0f}\n", alone / kIntervals, looked_at / kIntervals);
    RequireOk(vm_->Quit({}).status(), "Quit");
  }

 private:
  static int64_t Time(const std::function<void()>& call) {
    const auto before = Clock::now();
    call();
    return Nanoseconds(Clock::now() - before);
  }
  static int64_t Percentile99(std::vector<int64_t> times) {
    const auto at = times.begin() + static_cast<ptrdiff_t>(times.size() * 99 / 100);
    std::nth_element(times.begin(), at, times.end());
    return *at;
  }
  double Exits() { return Require(vm_->InspectVM(exits_), "InspectVM").result().number_value(); }
  // Port accesses a second over an interval.
  double Accesses(bool look) {
    const double before = Exits();
    const auto begun = Clock::now();
    const auto end = begun + std::chrono::duration_cast<Clock::duration>(
                                 std::chrono::duration<double>(settings_.seconds));
    if (!look) std::this_thread::sleep_until(end);
    for (auto next = begun; look && next < end; next += kBetweenCalls) {
      std::this_thread::sleep_until(next);
      RequireOk(vm_->InspectVM(whole_).status(), "InspectVM");
    }
    const double after = Exits();
    return (after - before) / std::chrono::duration<double>(Clock::now() - begun).count();
  }

  const Settings settings_;
  Folder folder_;
  Process server_;
  std::unique_ptr<ttrpc::Client> client_;
  std::unique_ptr<wire::VMClient> vm_;
  wire::InspectVMRequest whole_;
  wire::InspectVMRequest exits_;
};

int Main(const std::vector<std::string>& words) {
  Settings settings;
  const Arguments arguments = TakeOptions(
      words,
      {{"--server", [&](const std::string& value) { settings.server = value; }},
       {"--calls", [&](const std::string& value) { settings.calls = std::stoi(value); }},
       {"--seconds", [&](const std::string& value) { settings.seconds = std::stod(value); }}});
  if (!arguments.mode.empty() || settings.calls < 100) {
    Fail("usage: [--server BOTHY] [--calls N, at least 100] [--seconds S]");
  }
  Bench bench(settings);
  bench.Create();
  bench.MeasureCalls();
  bench.MeasureGuest();
  return 0;
}

}  // namespace
}  // namespace bothy::bench

int main(int argc, char** argv) {
  return bothy::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
