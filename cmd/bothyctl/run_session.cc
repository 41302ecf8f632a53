#include "cmd/bothyctl/run_session.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/output.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Empty;
using std::chrono::seconds;
using ::vmservice::PropertiesVMResponse;

// After this long a step says what it waits for.
constexpr auto kSlow = seconds(2);
// What an orderly end may take before a server of our own is killed.
constexpr auto kEndLimit = seconds(10);

constexpr int kEndSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

}  // namespace

RunSession::RunSession(RunOptions options)
    : options_(std::move(options)),
      timeline_(options_.start),
      init_pattern_(options_.timeline_init) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : kEndSignals) ::sigaddset(&signals, signal);
  ::sigaddset(&signals, SIGCONT);
  CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  ::signal(SIGPIPE, SIG_IGN);
  signals_.Reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  CHECK(signals_.valid());
  loop_.Watch(signals_.get(), POLLIN, [this] { OnSignal(); });
}

RunSession::~RunSession() = default;

int RunSession::Run() {
  const bool halted =
      Prepare() && StartServer() && Connect() && CreateVm() && ResumeVm() && WaitForHalt();
  if (halted) ShowLastOutput();
  TearDown();
  EndServer();
  return Report();
}

bool RunSession::Prepare() {
  const auto failed = [this](const absl::Status& status) {
    Fail("run", status);
    return false;
  };
  auto folder = PrivateFolder::Create();
  if (!folder.ok()) return failed(folder.status());
  folder_ = *std::move(folder);

  const bool keys = options_.terminal_port && TerminalMode::Usable(STDIN_FILENO);
  auto cleanup = CleanupProcess::Start(folder_->path(), keys ? STDIN_FILENO : -1);
  if (!cleanup.ok()) return failed(cleanup.status());
  cleanup_ = *std::move(cleanup);
  if (keys) terminal_ = std::make_unique<TerminalMode>(STDIN_FILENO, *cleanup_);

  if (!options_.terminal_port) return true;
  ConsoleOptions console;
  console.keys = keys;
  console.escape_key = options_.escape_key;
  console.on_command = [this](EscapeCommand command) { OnCommand(command); };
  console.on_output = [this](std::string_view bytes) { OnGuestOutput(bytes); };
  console_ = std::make_unique<Console>(loop_, std::move(console));
  const std::string path = folder_->path() + "/console.sock";
  auto listener = ttrpc::ListenUnix(path);
  if (!listener.ok()) return failed(listener.status());
  console_file_ = std::move(listener->file);
  console_->Accept(std::move(listener->fd));
  SetSerialPort(*options_.terminal_port, path, /*connect=*/true, options_.request.mutable_config());
  return true;
}

bool RunSession::StartServer() {
  if (!options_.globals.address.empty()) return true;
  options_.globals.address = folder_->path() + "/vm.sock";
  ServerProcessOptions options;
  options.program = FindServerProgram(options_.server);
  options.socket_path = options_.globals.address;
  options.log_level = options_.server_log_level;
  options.log_file = options_.server_log_file;
  auto server = ServerProcess::Start(options);
  if (!server.ok()) {
    Fail("server", server.status());
    return false;
  }
  server_ = *std::move(server);
  loop_.Watch(server_->exit_fd(), POLLIN, [this] {
    loop_.Unwatch(server_->exit_fd());
    server_exited_ = true;
  });
  loop_.Watch(server_->ready_fd(), POLLIN, [this] {
    char ignored[256];
    const ssize_t size = ::read(server_->ready_fd(), ignored, sizeof ignored);
    if (size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR))) return;
    loop_.Unwatch(server_->ready_fd());
    server_ready_ = true;
  });
  if (server_->log_fd() >= 0) {
    loop_.Watch(server_->log_fd(), POLLIN, [this] { OnServerLog(); });
  }
  return AwaitEvent("the server to be ready", [this] { return server_ready_; });
}

bool RunSession::Connect() {
  auto connection = Connection::Open(options_.globals.address);
  if (!connection.ok()) {
    // A server that failed to start has closed its standard output, too.
    if (server_) loop_.RunUntil([this] { return server_exited_; }, PollLoop::Clock::now() + kSlow);
    Fail(options_.globals.address.c_str(), connection.status());
    return false;
  }
  connection_ = *std::move(connection);
  timeline_.Mark(TimelineEvent::kServerReady);
  return true;
}

bool RunSession::CreateVm() {
  const auto result = Await<Empty>("CreateVM", [this](auto done) {
    connection_->vm().CreateVMAsync(options_.request, options_.globals.CallOptions(),
                                    std::move(done));
  });
  if (!result.ok()) {
    Fail("CreateVM", result.status());
    return false;
  }
  vm_created_ = true;
  timeline_.Mark(TimelineEvent::kCreateAnswered);
  // Before the guest runs, so that no halt is too quick for it.
  connection_->vm().WaitVMAsync({}, {}, [this](const absl::StatusOr<Empty>& answer) {
    loop_.Post([this, status = answer.status()] {
      timeline_.Mark(TimelineEvent::kHalt);
      wait_answer_ = status;
    });
  });
  return true;
}

bool RunSession::ResumeVm() {
  if (terminal_) {
    if (const absl::Status status = terminal_->EnterRaw(); !status.ok()) {
      Fail("run", status);
      return false;
    }
  }
  if (console_ && (terminal_ || ::isatty(STDIN_FILENO) == 0)) console_->StartInput();
  const auto result = Await<Empty>("ResumeVM", [this](auto done) {
    connection_->vm().ResumeVMAsync({}, options_.globals.CallOptions(), std::move(done));
  });
  if (!result.ok()) {
    Fail("ResumeVM", result.status());
    return false;
  }
  timeline_.Mark(TimelineEvent::kResumeAnswered);
  return true;
}

bool RunSession::WaitForHalt() {
  loop_.RunUntil([this] { return wait_answer_ || EndsEarly(); });
  if (!wait_answer_) return false;
  if (!wait_answer_->ok()) {
    Fail("WaitVM", *wait_answer_);
    return false;
  }
  return true;
}

void RunSession::ShowLastOutput() {
  // What the guest printed last may still be on its way through the server, whose control thread
  // both passes it on and answers calls: once a call has come and gone without more output, there
  // is none.
  uint64_t before = 0;
  do {
    before = console_ ? console_->received() : 0;
    const auto properties = Await<PropertiesVMResponse>("PropertiesVM", [this](auto done) {
      ::vmservice::PropertiesVMRequest request;
      request.add_types(::vmservice::PropertiesVMRequest::Processor);
      connection_->vm().PropertiesVMAsync(request, options_.globals.CallOptions(), std::move(done));
    });
    if (!properties.ok() && !absl::IsFailedPrecondition(properties.status())) {
      Fail("PropertiesVM", properties.status());
      return;
    }
    if (!properties.ok() || properties->state() != ::vmservice::Halted) {
      vm_created_ = false;  // if there is one now, it's another one
      torn_down_ = true;
      return;
    }
    halt_reason_ = properties->halt_reason();
    if (!console_) return;
    console_->ReadAvailable();
    loop_.RunUntil([this] { return !console_->waiting_for_output() || EndsEarly(); });
  } while (console_->received() != before && !EndsEarly());
}

void RunSession::TearDown() {
  ending_ = true;
  if (connection_ && vm_created_ && !server_exited_) {
    const auto result = Await<Empty>("TeardownVM", [this](auto done) {
      connection_->vm().TeardownVMAsync({}, {}, std::move(done));
    });
    if (!result.ok()) Fail("TeardownVM", result.status());
  }
  if (!console_) return;
  // The server closes the serial port with the VM, after the last of its output.
  console_->ReadAvailable();
  while (console_->connected() && !console_->ended() && !hurry_) {
    const bool reading = !console_->waiting_for_output();
    const bool progress = loop_.RunUntil(
        [&] { return console_->ended() || hurry_ || console_->waiting_for_output() == reading; },
        reading ? PollLoop::Clock::now() + kEndLimit : PollLoop::Clock::time_point::max());
    if (!progress) break;
  }
  console_->WakeWhenFlushed();
  loop_.RunUntil([this] { return console_->flushed() || hurry_; });
}

void RunSession::EndServer() {
  if (!server_) return;
  bool quitting = false;
  if (!server_exited_ && connection_ && !hurry_) {
    quitting = true;
    const auto result = Await<Empty>(
        "Quit", [this](auto done) { connection_->vm().QuitAsync({}, {}, std::move(done)); });
    if (!result.ok()) Fail("Quit", result.status());
    loop_.RunUntil([this] { return server_exited_ || hurry_; }, PollLoop::Clock::now() + kEndLimit);
  }
  const bool ended = server_exited_;
  if (!ended) {
    if (quitting && !hurry_ && failure_.empty()) {
      failure_ = "the server didn't end and was killed";
    }
    server_->Kill();
  }
  const std::string& how = server_->Reap();
  if (ended && !(quitting && server_->succeeded()) && failure_.empty()) {
    failure_ = absl::StrCat("the server ", how);
  }
  // Its records are all in the pipe now.
  if (server_->log_fd() >= 0) {
    while (OnServerLog()) {
    }
  }
}

int RunSession::Report() {
  if (console_) console_->StopInput();
  if (terminal_) terminal_->Restore();
  if (console_ && !console_->at_line_start() && ::isatty(STDOUT_FILENO) == 1 && !hurry_) {
    (void)!::write(STDOUT_FILENO, "\n", 1);
  }
  if (options_.timeline && !WriteTimeline() && failure_.empty()) return kExitError;
  if (failure_.empty() && console_ && console_->output_error() != 0) {
    failure_ = absl::StrCat("standard output: ", std::strerror(console_->output_error()));
  }
  if (!failure_.empty()) {
    PrintError(failure_);
    return kExitError;
  }
  if (signal_ != 0) return kExitSignal + signal_;
  if (user_quit_) return kExitOk;
  if (torn_down_) {
    PrintError("the VM was torn down by another client");
    return kExitTornDown;
  }
  if (halt_reason_ == "power-off") return kExitOk;
  PrintError(absl::StrCat("the guest halted: ", OneLine(halt_reason_)));
  return halt_reason_ == "reset" ? kExitGuestReset : kExitGuestCrashed;
}

bool RunSession::WriteTimeline() {
  const std::string text =
      options_.globals.json ? timeline_.Json(halt_reason_)
                            : timeline_.Text(options_.timeline_file.empty() ? STDERR_FILENO : -1);
  std::FILE* const file =
      options_.timeline_file.empty() ? stderr : std::fopen(options_.timeline_file.c_str(), "we");
  bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const int error = errno;
  if (file != nullptr && file != stderr) written = std::fclose(file) == 0 && written;
  if (!written) PrintError(ErrorLine(options_.timeline_file, ErrnoStatus(error, "write")));
  return written;
}

template <typename Response>
absl::StatusOr<Response> RunSession::Await(const char* what, const Start<Response>& start) {
  // Shared with the callback, which comes even after this has given up.
  const auto answer = std::make_shared<std::optional<absl::StatusOr<Response>>>();
  start([this, answer](absl::StatusOr<Response> result) {
    loop_.Post([answer, result = std::move(result)] { *answer = result; });
  });
  AwaitEvent(what, [&] { return answer->has_value(); });
  if (!*answer && server_exited_) {
    // The end of the connection is an answer, if the server hasn't given another one.
    loop_.RunUntil([&] { return answer->has_value(); });
  }
  if (*answer) return **answer;
  return absl::CancelledError(ending_ ? "no answer" : "ended early");
}

bool RunSession::AwaitEvent(const char* what, const std::function<bool()>& done) {
  const auto over = [&] { return done() || EndsEarly(); };
  const auto start = PollLoop::Clock::now();
  if (!loop_.RunUntil(over, start + kSlow)) {
    Say(absl::StrCat("waiting for ", what));
    loop_.RunUntil(over, ending_ ? start + kEndLimit : PollLoop::Clock::time_point::max());
  }
  return done();
}

bool RunSession::EndsEarly() const {
  if (ending_) return hurry_ || server_exited_;
  return user_quit_ || signal_ != 0 || server_exited_ ||
         (console_ && console_->output_error() != 0);
}

void RunSession::Fail(const char* what, const absl::Status& status) {
  if (server_ && absl::IsUnavailable(status)) {
    // The connection ends a moment before the process does.
    loop_.RunUntil([this] { return server_exited_ || hurry_; }, PollLoop::Clock::now() + kSlow);
  }
  // The first reason counts, and the server's death, which EndServer tells, is one of its own.
  if (!failure_.empty() || server_exited_ || hurry_) return;
  if (absl::IsCancelled(status) && EndsEarly()) return;
  failure_ = ErrorLine(what, status);
}

void RunSession::OnSignal() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCONT) {
      if (terminal_) terminal_->RawAgain();
      continue;
    }
    AskForEnd();
    if (signal_ == 0) signal_ = static_cast<int>(info.ssi_signo);
  }
}

void RunSession::AskForEnd() {
  if (user_quit_ || signal_ != 0) hurry_ = true;
}

bool RunSession::OnServerLog() {
  char buffer[4096];
  const ssize_t size = ::read(server_->log_fd(), buffer, sizeof buffer);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return false;
  if (size > 0) server_log_.append(buffer, static_cast<size_t>(size));
  constexpr size_t kLongestLine = 64 << 10;
  if (size <= 0) loop_.Unwatch(server_->log_fd());
  if ((size <= 0 && !server_log_.empty()) || server_log_.size() > kLongestLine) {
    server_log_ += '\n';
  }
  for (size_t end = 0; (end = server_log_.find('\n')) != std::string::npos;) {
    const std::string line = OneLine(std::string_view(server_log_).substr(0, end));
    server_log_.erase(0, end + 1);
    if (console_) {
      console_->Log(line);
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }
  return size > 0;
}

void RunSession::OnCommand(EscapeCommand command) {
  const std::string key = EscapeKeyName(*options_.escape_key);
  switch (command) {
    case EscapeCommand::kQuit:
      AskForEnd();
      user_quit_ = true;
      return;
    case EscapeCommand::kPauseOrResume:
      TogglePause();
      return;
    case EscapeCommand::kSuspend:
      Suspend();
      return;
    case EscapeCommand::kHelp:
      Say(absl::StrCat(key, " then q ends the VM, p pauses or resumes it, z suspends bothyctl, ",
                       key, " sends ", key));
      return;
    case EscapeCommand::kUnknown:
      Say(absl::StrCat("no such key; ", key, " ? lists them"));
      return;
  }
}

void RunSession::OnGuestOutput(std::string_view bytes) {
  timeline_.Mark(TimelineEvent::kFirstOutput);
  if (init_pattern_.Feed(bytes)) timeline_.Mark(TimelineEvent::kInit);
}

void RunSession::TogglePause() {
  if (pausing_ || !connection_ || ending_) return;
  pausing_ = true;
  const auto answered = [this](const absl::StatusOr<Empty>& result) {
    loop_.Post([this, status = result.status()] {
      pausing_ = false;
      if (!status.ok()) {
        Say(ErrorLine(paused_ ? "ResumeVM" : "PauseVM", status));
        return;
      }
      paused_ = !paused_;
      const std::string key = EscapeKeyName(*options_.escape_key);
      Say(paused_ ? absl::StrCat("paused; ", key, " p resumes") : "resumed");
    });
  };
  if (paused_) {
    connection_->vm().ResumeVMAsync({}, options_.globals.CallOptions(), answered);
  } else {
    connection_->vm().PauseVMAsync({}, options_.globals.CallOptions(), answered);
  }
}

void RunSession::Suspend() {
  // What comes from here on waits for the terminal to be ours again.
  console_->HoldOutput(true);
  Say("suspended; the guest goes on");
  console_->WakeWhenFlushed();
  loop_.RunUntil([this] { return console_->flushed() || EndsEarly(); });
  terminal_->Restore();
  // The whole job, as the terminal's own key would.
  ::kill(0, SIGTSTP);
  // Here again after SIGCONT, or at once where nobody could continue us.
  if (const absl::Status status = terminal_->EnterRaw(); !status.ok()) Fail("run", status);
  console_->HoldOutput(false);
}

void RunSession::Say(std::string_view text) {
  const std::string line = absl::StrCat("[bothyctl: ", std::string(text), "]");
  if (console_) {
    console_->Notice(line);
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

}  // namespace bothy::bothyctl
