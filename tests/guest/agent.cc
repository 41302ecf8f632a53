// The guest's first process in tests: says at once that it runs, does what the kernel command line
// asks for, or does what a test on the host asks for over the second serial port. README.md beside
// this file has the options and the protocol; facts.cc the facts.
#include <fcntl.h>
#include <linux/reboot.h>
#include <linux/serial.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest/disk_programs.h"
#include "tests/guest/facts.h"
#include "tests/guest/first_process.h"
#include "tests/guest/net_programs.h"
#include "tests/guest/vsock_programs.h"

namespace {

using first_process::CommandLineOption;
using first_process::Mount;
using first_process::RunProgram;

constexpr char kControlPort[] = "/dev/ttyS1";
constexpr size_t kMaxLine = 64 * 1024;
constexpr size_t kOutputChunk = 768;  // makes a line of 1 KiB in base64

void Say(std::string_view text) { first_process::WriteAll(STDOUT_FILENO, text); }

// ---- Ways to end ----

[[noreturn]] void Idle() {
  for (;;) pause();
}

[[noreturn]] void End(std::string_view how) {
  Say("bothy-guest: end " + std::string(how) + "\n");
  tcdrain(STDOUT_FILENO);
  sync();
  if (how == "poweroff") reboot(LINUX_REBOOT_CMD_POWER_OFF);
  if (how == "halt") reboot(LINUX_REBOOT_CMD_HALT);
  if (how == "hang") Idle();
  if (how == "panic") first_process::WriteFile("/proc/sysrq-trigger", "c");
  if (how == "triple-fault") how = "reset:triple";
  if (how == "reset" || how.substr(0, 6) == "reset:") {
    if (how.size() > 6 && !first_process::WriteFile("/sys/kernel/reboot/type", how.substr(6)))
      Say("bothy-guest: the kernel has no such reset\n");
    reboot(LINUX_REBOOT_CMD_RESTART);
  }
  Say("bothy-guest: no such end: " + std::string(how) + "\n");
  Idle();
}

// ---- Commands ----

[[noreturn]] void ExecuteShell(const std::string& command) {
  first_process::ResetSignals();
  execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
  _exit(127);
}

int RunShell(const std::string& command) { return RunProgram({"/bin/sh", "-c", command}); }

// ---- Devices ----

// Loads what the devices on one bus ask for.
void LoadDriversOf(const char* bus) {
  RunShell("cd /sys/bus/" + std::string(bus) +
           "/devices 2>/dev/null && [ -n \"$(ls)\" ] && cat */modalias | " +
           "xargs modprobe -qa 2>/dev/null");
}

// Starts a process that loads drivers for devices that appear, as udev would. -1 when it can't.
pid_t FollowDevices() {
  const int fd = first_process::OpenDeviceEvents();
  if (fd < 0) return -1;
  const pid_t follower = fork();
  if (follower != 0) {
    close(fd);
    return follower;
  }
  first_process::ResetSignals();
  // From here on nothing is missed; what is there already is asked for by bus.
  LoadDriversOf("pci");
  LoadDriversOf("virtio");
  std::set<std::string> asked;  // hundreds of disks ask for one driver
  char event[8192];
  for (;;) {
    const ssize_t n = recv(fd, event, sizeof event - 1, 0);
    if (n <= 0) continue;
    event[n] = 0;
    const std::string_view text(event, static_cast<size_t>(n));
    if (text.substr(0, 4) != "add@") continue;
    const size_t at = text.find(std::string_view("\0MODALIAS=", 10));
    if (at == std::string_view::npos) continue;
    const std::string alias = event + at + 10;
    if (asked.insert(alias).second) RunProgram({"modprobe", "-q", alias});
  }
}

bool HasDevices(const char* bus) {
  return !first_process::ListDirectory(("/sys/bus/" + std::string(bus) + "/devices").c_str())
              .empty();
}

// ---- The protocol on the second serial port ----

class Control {
 public:
  // False when the machine has no such port.
  bool Open() {
    fd_ = open(kControlPort, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd_ < 0) return false;
    serial_struct serial{};
    if (ioctl(fd_, TIOCGSERIAL, &serial) != 0 || serial.type == PORT_UNKNOWN) {
      close(fd_);
      return false;
    }
    termios settings{};
    tcgetattr(fd_, &settings);
    cfmakeraw(&settings);
    cfsetspeed(&settings, B115200);
    settings.c_cflag |= CLOCAL | CREAD;
    tcsetattr(fd_, TCSANOW, &settings);
    return true;
  }

  [[noreturn]] void Serve() {
    const int child_events = first_process::OpenChildEvents();
    Reply("ready 1");
    std::vector<pollfd> polls;
    for (;;) {
      polls.assign({{fd_, POLLIN, 0}, {child_events, POLLIN, 0}});
      for (const Job& job : jobs_) {
        if (job.output >= 0) polls.push_back({job.output, POLLIN, 0});
        if (job.error >= 0) polls.push_back({job.error, POLLIN, 0});
      }
      if (poll(polls.data(), polls.size(), -1) < 0) continue;
      if (polls[0].revents != 0) Receive();
      for (Job& job : jobs_) Forward(&job, /*all=*/false);
      if (polls[1].revents != 0) {
        first_process::ClearChildEvents(child_events);
        Reap();
      }
    }
  }

 private:
  struct Job {
    std::string id;
    pid_t pid = -1;
    int output = -1;
    int error = -1;
  };

  void Reply(const std::string& line) { first_process::WriteAll(fd_, line + "\n"); }

  void Receive() {
    char buffer[4096];
    const ssize_t n = read(fd_, buffer, sizeof buffer);
    if (n <= 0) return;
    received_.append(buffer, static_cast<size_t>(n));
    for (size_t end; (end = received_.find('\n')) != std::string::npos;) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) Handle(line);
    }
    if (received_.size() > kMaxLine) received_.clear();
  }

  // verb id [argument]
  void Handle(const std::string& line) {
    const size_t first = line.find(' ');
    const std::string verb = line.substr(0, first);
    std::string id = first == std::string::npos ? "" : line.substr(first + 1);
    std::string argument;
    if (const size_t second = id.find(' '); second != std::string::npos) {
      argument = id.substr(second + 1);
      id.resize(second);
    }
    if (id.empty())
      Reply("error - an id is missing");
    else if (verb == "ping")
      Reply("pong " + id);
    else if (verb == "clock")
      Reply("clock " + id + " " + facts::Clocks());
    else if (verb == "facts")
      SendFacts(id);
    else if (verb == "run")
      Start(id, first_process::PercentDecode(argument));
    else if (verb == "kill")
      Kill(id, atoi(argument.c_str()));
    else if (verb == "end") {
      Reply("ending " + id);
      tcdrain(fd_);
      End(argument);
    } else
      Reply("error " + id + " no such verb");
  }

  void SendFacts(const std::string& id) {
    for (const std::string& fact : facts::All()) Reply("fact " + id + " " + fact);
    Reply("exit " + id + " 0");
  }

  void Start(const std::string& id, const std::string& command) {
    int output[2], error[2];
    if (pipe2(output, O_CLOEXEC) != 0 || pipe2(error, O_CLOEXEC) != 0) {
      Reply("error " + id + " pipe");
      return;
    }
    const pid_t pid = fork();
    if (pid == 0) {
      setsid();
      const int null = open("/dev/null", O_RDONLY);
      dup2(null, 0);
      dup2(output[1], 1);
      dup2(error[1], 2);
      ExecuteShell(command);
    }
    close(output[1]);
    close(error[1]);
    fcntl(output[0], F_SETFL, O_NONBLOCK);
    fcntl(error[0], F_SETFL, O_NONBLOCK);
    jobs_.push_back({id, pid, output[0], error[0]});
  }

  void Kill(const std::string& id, int signal_number) {
    for (const Job& job : jobs_) {
      if (job.id != id) continue;
      // It has no process group of its own before its first steps are done, and no children either.
      if (kill(-job.pid, signal_number) != 0 && errno == ESRCH) kill(job.pid, signal_number);
    }
  }

  void Forward(Job* job, bool all) {
    ForwardOne("out ", job->id, &job->output, all);
    ForwardOne("err ", job->id, &job->error, all);
  }

  void ForwardOne(const char* verb, const std::string& id, int* fd, bool all) {
    do {
      std::string data;
      first_process::ReadAvailable(fd, kOutputChunk, &data);
      if (data.empty()) return;
      Reply(verb + id + " " + first_process::Base64Encode(data));
    } while (all);
  }

  void Reap() {
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
        if (job->pid != pid) continue;
        Forward(&*job, /*all=*/true);
        // A grandchild may hold the other ends still; its output is nobody's.
        if (job->output >= 0) close(job->output);
        if (job->error >= 0) close(job->error);
        Reply("exit " + job->id + " " + std::to_string(first_process::ShellStatus(status)));
        jobs_.erase(job);
        break;
      }
    }
  }

  int fd_ = -1;
  std::string received_;
  std::list<Job> jobs_;
};

// ---- Start ----

// The process that follows devices, -1 when there is none.
pid_t PrepareUserSpace() {
  Mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
  Mount("devpts", "/dev/pts", "devpts", 0, nullptr);
  Mount("tmpfs", "/tmp", "tmpfs", 0, nullptr);
  setenv("PATH", "/bin", 1);
  setenv("HOME", "/", 1);
  setenv("TERM", "vt100", 0);
  RunProgram({"/bin/busybox", "--install", "-s", "/bin"});
  return HasDevices("pci") || HasDevices("virtio") ? FollowDevices() : -1;
}

// What an initramfs is for elsewhere: goes on with the init of the file system on `device`.
[[noreturn]] void EnterRoot(const std::string& device, pid_t device_follower) {
  const int events = first_process::OpenDeviceEvents();
  const std::string type = CommandLineOption("rootfstype").value_or("ext4");
  // As everywhere, it is for its own init to make it writable. The device's node is there before it
  // can be opened; an event says when.
  while (!Mount(device.c_str(), "/root", type.c_str(), MS_RDONLY, nullptr)) {
    const bool not_yet = errno == ENOENT || errno == ENXIO;
    if (!not_yet || events < 0) {
      Say("bothy-guest: mounting " + device + " failed: " + strerror(errno) + "\n");
      Idle();
    }
    std::array<char, 8192> event{};
    (void)!recv(events, event.data(), event.size(), 0);
  }
  close(events);
  if (device_follower > 0) kill(device_follower, SIGKILL);
  for (const std::string directory : {"/dev", "/proc", "/sys"}) {
    mount(directory.c_str(), ("/root" + directory).c_str(), nullptr, MS_MOVE, nullptr);
  }
  // It frees what the initramfs takes.
  execl("/bin/switch_root", "switch_root", "/root", "/sbin/init", nullptr);
  Idle();
}

int Init() {
  Say("bothy-guest: init " + facts::Clocks() + "\n");
  if (!Mount("proc", "/proc", "proc", 0, nullptr) || !Mount("sysfs", "/sys", "sysfs", 0, nullptr)) {
    Say("bothy-guest: mounting /proc and /sys failed\n");
    Idle();
  }
  const auto end = CommandLineOption("bothy.end");
  const auto command = CommandLineOption("bothy.run");
  const bool demo = CommandLineOption("bothy.demo").has_value();
  if (demo) Say(facts::Introduction());
  if (command) {
    PrepareUserSpace();
    const int status = RunShell(first_process::PercentDecode(*command));
    Say("bothy-guest: exit " + std::to_string(status) + "\n");
  }
  if (end || command || demo) End(end.value_or("poweroff"));

  const pid_t device_follower = PrepareUserSpace();
  if (const auto root = CommandLineOption("root")) EnterRoot(*root, device_follower);
  Control control;
  if (control.Open()) control.Serve();
  Say("bothy-guest: a shell; it powers off after exit\n");
  RunProgram({"/bin/setsid", "-c", "/bin/sh"});
  End("poweroff");
}

}  // namespace

int main(int argc, char** argv) {
  if (getpid() == 1) return Init();
  const char* const slash = strrchr(argv[0], '/');
  const std::string_view name = slash != nullptr ? slash + 1 : argv[0];
  for (const char* const known : disk_programs::kNames) {
    if (name == known) return disk_programs::Main(argc, argv);
  }
  for (const char* const known : net_programs::kNames) {
    if (name == known) return net_programs::Main(argc, argv);
  }
  for (const char* const known : vsock_programs::kNames) {
    if (name == known) return vsock_programs::Main(argc, argv);
  }
  return facts::Main(argc, argv);
}
