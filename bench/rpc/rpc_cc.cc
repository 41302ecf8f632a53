// Our side of the rpc benchmark: bothy's ttrpc as server and as client.
//
//   bench_rpc serve SOCKET                         answers CapabilitiesVM until killed
//   bench_rpc latency SOCKET SECONDS               one call after the other: median round trip, ns
//   bench_rpc throughput SOCKET SECONDS IN_FLIGHT  calls per second over one connection
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/event_loop.h"
#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/unix_socket.h"
#include "vmservice.ttrpc.h"

namespace {

using bothy::ttrpc::Client;
using bothy::ttrpc::Server;
using google::protobuf::Empty;
using vmservice::CapabilitiesVMResponse;
using Clock = std::chrono::steady_clock;

[[noreturn]] void Fail(std::string_view what) {
  std::fprintf(stderr, "bench_rpc: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(1);
}

void Require(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString());
}

// What a server with everything implemented answers; rpc_go.go has the same.
class BenchService : public vmservice::VMService {
 public:
  void CapabilitiesVM(std::shared_ptr<bothy::ttrpc::ServerCall>, Empty,
                      bothy::ttrpc::Reply<CapabilitiesVMResponse> reply) override {
    CapabilitiesVMResponse response;
    response.add_supported_guest_os(CapabilitiesVMResponse::Linux);
    for (int i = CapabilitiesVMResponse::Vpmem; i <= CapabilitiesVMResponse::Processor; ++i) {
      auto* const resource = response.add_supported_resources();
      resource->set_resource(static_cast<CapabilitiesVMResponse::Resource>(i));
      resource->set_add(i != CapabilitiesVMResponse::Plan9);
      resource->set_remove(i != CapabilitiesVMResponse::Plan9);
      resource->set_update(i == CapabilitiesVMResponse::Memory ||
                           i == CapabilitiesVMResponse::Scsi);
    }
    reply(response);
  }
};

void Serve(const std::string& path) {
  bothy::EventLoop loop;
  BenchService service;
  auto server = Server::Create(loop, {});
  Require(server.status());
  Require((*server)->Register(service));
  auto bound = bothy::ttrpc::ListenUnix(path);
  Require(bound.status());
  Require((*server)->Listen(std::move(bound->fd)));
  ::close(STDOUT_FILENO);  // ready, as bothy says it
  loop.Run();
}

std::unique_ptr<Client> Connect(const std::string& path) {
  auto client = Client::Connect(path);
  Require(client.status());
  return *std::move(client);
}

void Check(const absl::StatusOr<CapabilitiesVMResponse>& response) {
  Require(response.status());
  if (response->supported_resources_size() != 7) Fail("expected seven resources");
}

void Latency(const std::string& path, std::chrono::duration<double> duration) {
  const auto connection = Connect(path);
  vmservice::VMClient vm(*connection);
  for (const auto end = Clock::now() + duration / 5; Clock::now() < end;) {
    Check(vm.CapabilitiesVM({}));
  }
  std::vector<Clock::duration> times;
  times.reserve(1 << 20);
  for (const auto end = Clock::now() + duration;;) {
    const auto before = Clock::now();
    if (before >= end) break;
    Check(vm.CapabilitiesVM({}));
    times.push_back(Clock::now() - before);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  std::printf("%lld\n",
              static_cast<long long>(std::chrono::nanoseconds(times[times.size() / 2]).count()));
}

// Keeps IN_FLIGHT asynchronous calls under way until the time is over.
class Load {
 public:
  Load(Client& connection, Clock::time_point end) : vm_(connection), end_(end) {}

  void Start(int in_flight) {
    running_ = in_flight;
    for (int i = 0; i < in_flight; ++i) CallOnce();
  }
  int64_t Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    return calls_;
  }

 private:
  void CallOnce() {
    vm_.CapabilitiesVMAsync({}, {}, [this](const absl::StatusOr<CapabilitiesVMResponse>& response) {
      Check(response);
      ++calls_;
      if (Clock::now() < end_) return CallOnce();
      const std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    });
  }

  vmservice::VMClient vm_;
  const Clock::time_point end_;
  int64_t calls_ = 0;  // callbacks only, then whoever waited for the last of them
  std::mutex mutex_;
  std::condition_variable done_;
  int running_ = 0;  // guarded by mutex_
};

void Throughput(const std::string& path, std::chrono::duration<double> duration, int in_flight) {
  const auto connection = Connect(path);
  const auto begin = Clock::now();
  Load load(*connection, begin + std::chrono::duration_cast<Clock::duration>(duration));
  load.Start(in_flight);
  const int64_t calls = load.Wait();
  const std::chrono::duration<double> taken = Clock::now() - begin;
  std::printf("%.0f\n", static_cast<double>(calls) / taken.count());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "serve") {
    Serve(arguments[1]);
  } else if (arguments.size() == 3 && arguments[0] == "latency") {
    Latency(arguments[1], std::chrono::duration<double>(std::stod(arguments[2])));
  } else if (arguments.size() == 4 && arguments[0] == "throughput") {
    Throughput(arguments[1], std::chrono::duration<double>(std::stod(arguments[2])),
               std::stoi(arguments[3]));
  } else {
    Fail("usage: serve SOCKET | latency SOCKET SECONDS | throughput SOCKET SECONDS IN_FLIGHT");
  }
  return 0;
}
