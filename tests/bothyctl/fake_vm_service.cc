#include "tests/bothyctl/fake_vm_service.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/buffer.hpp>
#include <asio/write.hpp>
#include <csignal>
#include <cstdio>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Empty;

constexpr char kFlooded[] = "flood:";

std::string Flood(int kibibytes) {
  std::string text;
  for (int line = 0; line < kibibytes * 16; ++line) {
    absl::StrAppendFormat(&text, "%-62d\r\n", line);
  }
  return text;
}

}  // namespace

// The far end of serial port 0.
class FakeVmService::Guest : public std::enable_shared_from_this<Guest> {
 public:
  Guest(FakeVmService& service, asio::local::stream_protocol::socket socket)
      : service_(&service), socket_(std::move(socket)) {}

  void Print(std::string text) {
    output_.push_back(std::move(text));
    if (output_.size() == 1) Write();
  }

  // Halts once all that was printed has gone out.
  void HaltAfterOutput(std::string reason) {
    halt_ = std::move(reason);
    HaltIfDue();
  }

  void Read() {
    auto self = shared_from_this();
    socket_.async_read_some(asio::buffer(input_), [self](const asio::error_code& error, size_t n) {
      if (error || self->service_ == nullptr) return;
      for (size_t i = 0; i < n; ++i) self->Typed(self->input_[i]);
      self->Read();
    });
  }

  // The VM is gone: closes the port after what has been printed.
  void Close() {
    service_ = nullptr;
    closing_ = true;
    if (output_.empty()) CloseNow();
  }

 private:
  void Typed(char byte) {
    if (byte == 'O') return HaltAfterOutput("power-off");
    if (byte == 'K') ::raise(SIGKILL);
    if (byte == 'X') ::_exit(7);
    Print(absl::StrFormat("<%02x>", static_cast<unsigned char>(byte)));
  }

  void Write() {
    auto self = shared_from_this();
    asio::async_write(socket_, asio::buffer(output_.front()),
                      [self](const asio::error_code& error, size_t) {
                        self->output_.pop_front();
                        if (error) self->output_.clear();
                        if (!self->output_.empty()) return self->Write();
                        if (self->closing_) return self->CloseNow();
                        self->HaltIfDue();
                      });
  }

  void HaltIfDue() {
    if (service_ == nullptr || halt_.empty() || !output_.empty()) return;
    service_->Halt(std::exchange(halt_, {}));
  }

  void CloseNow() {
    asio::error_code ignored;
    socket_.close(ignored);
  }

  FakeVmService* service_;
  asio::local::stream_protocol::socket socket_;
  std::array<char, 4096> input_;
  std::deque<std::string> output_;
  std::string halt_;
  bool closing_ = false;
};

FakeVmService::FakeVmService(EventLoop& loop, std::function<void(const std::string&)> on_call,
                             std::function<void()> on_quit)
    : loop_(loop), on_call_(std::move(on_call)), on_quit_(std::move(on_quit)) {}

FakeVmService::~FakeVmService() {
  if (guest_) guest_->Close();
}

template <typename Response>
bool FakeVmService::Stuck(const std::string& method, ttrpc::Reply<Response>& reply) {
  on_call_(method);
  if (std::find(words_.begin(), words_.end(), "stuck:" + method) == words_.end()) return false;
  stuck_.push_back(std::move(reply));
  return true;
}

void FakeVmService::CreateVM(Call, ::vmservice::CreateVMRequest request,
                             ttrpc::Reply<Empty> reply) {
  if (state_ != ::vmservice::Uninitialized) {
    on_call_("CreateVM");
    return reply(absl::AlreadyExistsError("there is a VM already"));
  }
  create_ = std::move(request);
  words_ = absl::StrSplit(create_.config().direct_boot().kernel_cmdline(), ' ', absl::SkipEmpty());
  if (Stuck("CreateVM", reply)) return;
  for (const std::string& word : words_) {
    if (word.starts_with("refuse:")) {
      return reply(absl::InvalidArgumentError(absl::StrCat(word.substr(7), ": refused")));
    }
    if (word.starts_with("log:")) std::fprintf(stderr, "%s\n", word.substr(4).c_str());
  }
  for (const auto& serial : create_.config().serial_config().ports()) {
    if (serial.port() != 0) continue;
    asio::local::stream_protocol::socket socket(loop_.context());
    asio::error_code error;
    socket.connect(asio::local::stream_protocol::endpoint(serial.socket_path()), error);
    if (error) return reply(absl::NotFoundError(error.message()));
    guest_ = std::make_shared<Guest>(*this, std::move(socket));
  }
  state_ = ::vmservice::Paused;
  reply(Empty());
}

void FakeVmService::ResumeVM(Call, Empty, ttrpc::Reply<Empty> reply) {
  if (Stuck("ResumeVM", reply)) return;
  if (state_ == ::vmservice::Uninitialized || state_ == ::vmservice::Halted) {
    return reply(absl::FailedPreconditionError("nothing to resume"));
  }
  state_ = ::vmservice::Running;
  reply(Empty());
  bool deaf = false;
  for (const std::string& word : std::exchange(words_, {})) {
    if (word.starts_with("stuck:")) words_.push_back(word);
    if (word == "deaf") deaf = true;
    std::string reason;
    if (word == "poweroff") reason = "power-off";
    if (word == "reset") reason = "reset";
    if (word == "crash") reason = "triple-fault";
    if (!reason.empty() && guest_) guest_->HaltAfterOutput(reason);
    if (!reason.empty() && !guest_) Halt(reason);
    if (!guest_) continue;
    if (word.starts_with("print:")) {
      guest_->Print(absl::StrReplaceAll(word.substr(6), {{"\\n", "\r\n"}, {"_", " "}}));
    }
    if (word.starts_with(kFlooded)) {
      guest_->Print(Flood(std::stoi(word.substr(sizeof kFlooded - 1))));
    }
  }
  if (guest_ && !deaf) guest_->Read();
}

void FakeVmService::PauseVM(Call, Empty, ttrpc::Reply<Empty> reply) {
  if (Stuck("PauseVM", reply)) return;
  if (state_ != ::vmservice::Running && state_ != ::vmservice::Paused) {
    return reply(absl::FailedPreconditionError("no VM runs"));
  }
  state_ = ::vmservice::Paused;
  reply(Empty());
}

void FakeVmService::WaitVM(Call, Empty, ttrpc::Reply<Empty> reply) {
  if (Stuck("WaitVM", reply)) return;
  if (state_ == ::vmservice::Uninitialized) {
    return reply(absl::FailedPreconditionError("there is no VM"));
  }
  if (state_ == ::vmservice::Halted) return reply(Empty());
  waiters_.push_back(std::move(reply));
}

void FakeVmService::TeardownVM(Call, Empty, ttrpc::Reply<Empty> reply) {
  if (Stuck("TeardownVM", reply)) return;
  if (guest_) std::exchange(guest_, nullptr)->Close();
  state_ = ::vmservice::Uninitialized;
  halt_reason_.clear();
  WakeWaiters();
  reply(Empty());
}

void FakeVmService::Quit(Call, Empty, ttrpc::Reply<Empty> reply) {
  if (Stuck("Quit", reply)) return;
  if (guest_) std::exchange(guest_, nullptr)->Close();
  reply(Empty());
  on_quit_();
}

void FakeVmService::InspectVM(Call, ::vmservice::InspectVMRequest request,
                              ttrpc::Reply<::vmservice::InspectVMResponse> reply) {
  on_call_("InspectVM");
  inspect_ = std::move(request);
  ::vmservice::InspectVMResponse response;
  if (!inspect_result_.ok()) return reply(inspect_result_.status());
  *response.mutable_result() = *inspect_result_;
  reply(response);
}

void FakeVmService::CapabilitiesVM(Call, Empty,
                                   ttrpc::Reply<::vmservice::CapabilitiesVMResponse> reply) {
  on_call_("CapabilitiesVM");
  ::vmservice::CapabilitiesVMResponse response;
  auto* const scsi = response.add_supported_resources();
  scsi->set_resource(::vmservice::CapabilitiesVMResponse::Scsi);
  scsi->set_add(true);
  scsi->set_remove(true);
  response.add_supported_resources()->set_resource(::vmservice::CapabilitiesVMResponse::Plan9);
  response.add_supported_guest_os(::vmservice::CapabilitiesVMResponse::Linux);
  reply(response);
}

void FakeVmService::PropertiesVM(Call, ::vmservice::PropertiesVMRequest request,
                                 ttrpc::Reply<::vmservice::PropertiesVMResponse> reply) {
  on_call_("PropertiesVM");
  ::vmservice::PropertiesVMResponse response;
  response.set_state(state_);
  response.set_halt_reason(halt_reason_);
  const auto wants = [&](::vmservice::PropertiesVMRequest::PropertiesType type) {
    return request.types().empty() ||
           std::find(request.types().begin(), request.types().end(), type) != request.types().end();
  };
  if (wants(::vmservice::PropertiesVMRequest::Memory)) {
    response.mutable_memory_stats()->set_assigned_memory(uint64_t{512} << 20);
    response.mutable_memory_stats()->set_working_set_bytes((uint64_t{100} << 20) + (1 << 19));
  }
  if (wants(::vmservice::PropertiesVMRequest::Processor)) {
    response.mutable_processor_stats()->set_total_runtime_ns(1'500'000'000);
  }
  reply(response);
}

void FakeVmService::ModifyResource(Call, ::vmservice::ModifyResourceRequest request,
                                   ttrpc::Reply<Empty> reply) {
  modify_ = std::move(request);
  if (!Stuck("ModifyResource", reply)) reply(Empty());
}

void FakeVmService::VMSocket(Call, ::vmservice::VMSocketRequest request,
                             ttrpc::Reply<Empty> reply) {
  socket_ = std::move(request);
  if (!Stuck("VMSocket", reply)) reply(Empty());
}

void FakeVmService::Halt(const std::string& reason) {
  state_ = ::vmservice::Halted;
  halt_reason_ = reason;
  WakeWaiters();
}

void FakeVmService::WakeWaiters() {
  for (auto& waiter : std::exchange(waiters_, {})) waiter(Empty());
}

}  // namespace bothy::bothyctl
