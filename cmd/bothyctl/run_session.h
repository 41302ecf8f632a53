// RunSession: `bothyctl run` from the server's start to the guest's end.
//
// One thread and one loop; each step waits in the loop for its event, or for what ends it early: a
// signal, the user's escape key, the server's death. Whatever happens, the end is the same: the
// guest's last output is shown, the VM torn down, a server of our own ended, the terminal put back.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cmd/bothyctl/cleanup_process.h"
#include "cmd/bothyctl/connection.h"
#include "cmd/bothyctl/console.h"
#include "cmd/bothyctl/poll_loop.h"
#include "cmd/bothyctl/private_folder.h"
#include "cmd/bothyctl/server_process.h"
#include "cmd/bothyctl/terminal_mode.h"
#include "cmd/bothyctl/timeline.h"
#include "cmd/bothyctl/vm_flags.h"
#include "support/status.h"
#include "ttrpc/unix_socket.h"

namespace bothy::bothyctl {

struct RunOptions {
  Globals globals;  // with an address: a running server is used, and left running
  ::vmservice::CreateVMRequest request;
  std::optional<uint32_t> terminal_port;  // this serial port is on the terminal
  std::string server;                     // program to start; empty: FindServerProgram
  std::string server_log_level = "error";
  std::string server_log_file;  // empty: the server's records come out on standard error
  std::optional<char> escape_key = kDefaultEscapeKey;
  bool timeline = false;
  std::string timeline_file;  // empty: standard error
  std::string timeline_init = "^bothy-guest: init";
  Timeline::Clock::time_point start = Timeline::Clock::now();
};

class RunSession {
 public:
  // Blocks the signals it obeys, so the process must have one thread.
  explicit RunSession(RunOptions options);
  ~RunSession();
  RunSession(const RunSession&) = delete;
  RunSession& operator=(const RunSession&) = delete;

  // Once. The exit status of the program (exit_code.h); says on standard error why it isn't 0.
  int Run();

 private:
  template <typename Response>
  using Start = std::function<void(std::function<void(absl::StatusOr<Response>)>)>;

  // Each step returns whether the next is to follow; if not, EndsEarly() or failure_ says why.
  bool Prepare();
  bool StartServer();
  bool Connect();
  bool CreateVm();
  bool ResumeVm();
  bool WaitForHalt();

  void ShowLastOutput();
  void TearDown();
  void EndServer();
  int Report();

  // Waits for the answer to a call; Cancelled when it is given up (EndsEarly).
  template <typename Response>
  absl::StatusOr<Response> Await(const char* what, const Start<Response>& start);
  // Waits for `done` or an early end; says so if it takes long. Whether it is done.
  bool AwaitEvent(const char* what, const std::function<bool()>& done);
  // Whether what is under way is to be given up.
  [[nodiscard]] bool EndsEarly() const;
  void Fail(const char* what, const absl::Status& status);
  bool WriteTimeline();

  void OnSignal();
  void AskForEnd();
  // Shows what the server has logged; false when there is no more for now.
  bool OnServerLog();
  void OnCommand(EscapeCommand command);
  void OnGuestOutput(std::string_view bytes);
  void TogglePause();
  void Suspend();
  void Say(std::string_view text);

  RunOptions options_;
  Timeline timeline_;
  PatternFinder init_pattern_;
  PollLoop loop_;
  UniqueFd signals_;

  // In the order they come to be; they go in reverse.
  std::optional<PrivateFolder> folder_;
  std::unique_ptr<CleanupProcess> cleanup_;
  std::unique_ptr<TerminalMode> terminal_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Console> console_;
  std::optional<Connection> connection_;

  ttrpc::SocketFile console_file_;
  bool server_ready_ = false;
  bool server_exited_ = false;
  std::string server_log_;  // a line that hasn't ended yet
  bool vm_created_ = false;
  std::optional<absl::Status> wait_answer_;  // WaitVM's
  bool torn_down_ = false;                   // not by us
  std::string halt_reason_;
  bool paused_ = false;
  bool pausing_ = false;  // a call of PauseVM or ResumeVM is under way
  bool user_quit_ = false;
  int signal_ = 0;       // the first that asked for the end
  bool hurry_ = false;   // the end was asked for twice
  bool ending_ = false;  // nothing but the orderly end is still to be done
  std::string failure_;  // an error line
};

}  // namespace bothy::bothyctl
