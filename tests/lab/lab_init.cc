// The lab's first process: makes the host's root file system this one's, runs one command and
// carries its input and output. docs/lab.md says what the lab is for; lab.py is the other end.
//
// The channel is one virtio-serial port that carries frames: a type byte, a 32-bit little-endian
// length, that many bytes.
//   host → lab   'R' what to run (once, first), in NUL-terminated fields: "rows cols" (empty
//                    without a terminal), the working directory, the number of variables, each
//                    NAME=VALUE, then the arguments
//                'T' the time, in nanoseconds since 1970, when 'B' said "ready"
//                'I' input; an empty one ends it        'W' a new window size, "rows cols"
//   lab → host   'O' output   'E' error output          'X' exit status, in decimal (last)
//                'B' boot: the init's own clock at a step of start-up, for the timeline
#include <fcntl.h>
#include <linux/reboot.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest/first_process.h"

namespace {

using first_process::Mount;

constexpr char kPort[] = "vport0p1";
constexpr size_t kHeaderSize = 5;
constexpr size_t kChunk = 64 * 1024;
// Input that the command hasn't read yet; beyond it the channel isn't read either.
constexpr size_t kMaxPendingInput = 1024 * 1024;

[[noreturn]] void Die(const char* what) {
  dprintf(STDERR_FILENO, "lab: %s: %s\n", what, strerror(errno));
  sync();
  reboot(LINUX_REBOOT_CMD_RESTART);
  _exit(1);
}

std::string Clock() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  char text[32];
  snprintf(text, sizeof text, "%.3f",
           static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9);
  return text;
}

class Channel {
 public:
  void Open() {
    const std::string path = std::string("/dev/") + kPort;
    first_process::AwaitFile(path);
    fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) Die("open the channel");
  }

  int fd() const { return fd_; }

  void Send(char type, std::string_view payload) {
    std::string frame(kHeaderSize, type);
    const auto size = static_cast<uint32_t>(payload.size());
    memcpy(&frame[1], &size, sizeof size);
    frame += payload;
    if (!first_process::WriteAll(fd_, frame)) Die("the channel");
  }

  // Reads what is there into the buffer; Next() then takes whole frames out of it.
  void Receive() {
    char buffer[kChunk];
    const ssize_t n = read(fd_, buffer, sizeof buffer);
    if (n < 0 && errno != EINTR) Die("the channel");
    if (n == 0) {
      errno = EPIPE;
      Die("the channel");
    }
    if (n > 0) received_.append(buffer, static_cast<size_t>(n));
  }

  bool Next(char* type, std::string* payload) {
    if (received_.size() < kHeaderSize) return false;
    uint32_t size = 0;
    memcpy(&size, received_.data() + 1, sizeof size);
    if (received_.size() - kHeaderSize < size) return false;
    *type = received_[0];
    *payload = received_.substr(kHeaderSize, size);
    received_.erase(0, kHeaderSize + size);
    return true;
  }

 private:
  int fd_ = -1;
  std::string received_;
};

struct Command {
  bool terminal = false;
  winsize window{};
  std::string directory;
  std::vector<std::string> environment;
  std::vector<std::string> arguments;
};

winsize ParseWindow(const std::string& text) {
  winsize window{};
  sscanf(text.c_str(), "%hu %hu", &window.ws_row, &window.ws_col);
  return window;
}

Command ParseCommand(const std::string& payload) {
  std::vector<std::string> fields;
  for (size_t begin = 0; begin < payload.size();) {
    const size_t end = payload.find('\0', begin);
    fields.push_back(payload.substr(begin, end - begin));
    begin = end == std::string::npos ? payload.size() : end + 1;
  }
  errno = EINVAL;
  if (fields.size() < 4) Die("what to run");
  Command command;
  command.terminal = !fields[0].empty();
  command.window = ParseWindow(fields[0]);
  command.directory = fields[1];
  const size_t variables = strtoul(fields[2].c_str(), nullptr, 10);
  if (fields.size() < 4 + variables) Die("what to run");
  const auto first_argument = fields.begin() + 3 + static_cast<ptrdiff_t>(variables);
  command.environment.assign(fields.begin() + 3, first_argument);
  command.arguments.assign(first_argument, fields.end());
  return command;
}

// The host's root, read-only under a writable layer that is forgotten with the lab.
void EnterHostRoot() {
  if (!Mount("tmpfs", "/layer", "tmpfs", 0, "mode=0755")) Die("mount tmpfs");
  if (!Mount("hostroot", "/host", "9p", MS_RDONLY,
             "trans=virtio,version=9p2000.L,msize=1048576,cache=loose"))
    Die("mount the host's root");
  if (mkdir("/layer/upper", 0755) != 0 || mkdir("/layer/work", 0755) != 0) Die("mkdir");
  if (!Mount("overlay", "/root", "overlay", 0,
             "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"))
    Die("mount overlay");
  for (const char* moved : {"/dev", "/proc", "/sys"}) {
    const std::string target = std::string("/root") + moved;
    if (mount(moved, target.c_str(), nullptr, MS_MOVE, nullptr) != 0) Die(moved);
  }
  if (chdir("/root") != 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || chroot(".") != 0 ||
      chdir("/") != 0)
    Die("switch root");
}

void MakeDirectories(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1))
    mkdir(path.substr(0, slash).c_str(), 0755);
  mkdir(path.c_str(), 0755);
}

void MountRest() {
  Mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
  Mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  Mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
  Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  first_process::WriteFile("/sys/fs/cgroup/cgroup.subtree_control",
                           "+cpu +memory +pids +io +cpuset");
  symlink("/proc/self/fd", "/dev/fd");
  symlink("/proc/self/fd/0", "/dev/stdin");
  symlink("/proc/self/fd/1", "/dev/stdout");
  symlink("/proc/self/fd/2", "/dev/stderr");
  sethostname("lab", 3);
  first_process::RaiseLoopback();
  first_process::WriteFile("/proc/sys/kernel/printk", "3 4 1 3");

  if (const auto results = first_process::CommandLineOption("lab.results")) {
    MakeDirectories(*results);
    if (mount("results", results->c_str(), "9p", 0,
              "trans=virtio,version=9p2000.L,msize=1048576,cache=mmap") != 0)
      Die("mount the results folder");
  }
  // The running kernel's modules, under the name that modprobe looks for.
  if (const auto modules = first_process::CommandLineOption("lab.modules")) {
    MakeDirectories("/lib/modules");
    mount(modules->c_str(), "/lib/modules", nullptr, MS_BIND, nullptr);
  }
}

// The command as a child, and the ends of its standard streams that are ours. With a terminal all
// three are one.
class Child {
 public:
  void Start(const Command& command) {
    int in[2], out[2], err[2];
    std::string terminal_name;
    if (command.terminal) {
      in[1] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
      if (in[1] < 0 || unlockpt(in[1]) != 0) Die("open a terminal");
      terminal_name = ptsname(in[1]);
      ioctl(in[1], TIOCSWINSZ, &command.window);
      out[0] = fcntl(in[1], F_DUPFD_CLOEXEC, 0);
      err[0] = -1;
    } else if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 ||
               pipe2(err, O_CLOEXEC) != 0) {
      Die("pipe");
    }
    pid_ = fork();
    if (pid_ < 0) Die("fork");
    if (pid_ == 0) {
      setsid();
      if (command.terminal) {
        const int terminal = open(terminal_name.c_str(), O_RDWR);
        ioctl(terminal, TIOCSCTTY, 0);
        for (const int stream : {0, 1, 2}) dup2(terminal, stream);
        if (terminal > 2) close(terminal);
      } else {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
      }
      Execute(command);
    }
    if (!command.terminal) {
      close(in[0]);
      close(out[1]);
      close(err[1]);
    }
    terminal_ = command.terminal;
    input_ = in[1];
    output_ = out[0];
    error_ = err[0];
    fcntl(input_, F_SETFL, O_NONBLOCK);
    fcntl(output_, F_SETFL, O_NONBLOCK);
    if (error_ >= 0) fcntl(error_, F_SETFL, O_NONBLOCK);
  }

  pid_t pid() const { return pid_; }
  bool wants_input() const { return pending_.size() < kMaxPendingInput; }

  void Resize(const winsize& window) {
    if (terminal_) ioctl(input_, TIOCSWINSZ, &window);
  }

  void Input(std::string_view data) {
    if (data.empty()) end_of_input_ = true;
    pending_ += data;
    Feed();
  }

  void Feed() {
    while (input_ >= 0 && !pending_.empty()) {
      const ssize_t n = write(input_, pending_.data(), pending_.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0) {  // it doesn't read any more
        pending_.clear();
        end_of_input_ = true;
        break;
      }
      pending_.erase(0, static_cast<size_t>(n));
    }
    if (end_of_input_ && input_ >= 0 && !terminal_) {
      close(input_);
      input_ = -1;
    }
  }

  void AddPolls(std::vector<pollfd>* polls) const {
    if (input_ >= 0 && !pending_.empty()) polls->push_back({input_, POLLOUT, 0});
    if (output_ >= 0) polls->push_back({output_, POLLIN, 0});
    if (error_ >= 0) polls->push_back({error_, POLLIN, 0});
  }

  // Sends what the command has written; `all` goes on until there is nothing more right now.
  void Drain(Channel* channel, bool all) {
    DrainOne(&output_, 'O', channel, all);
    DrainOne(&error_, 'E', channel, all);
  }

 private:
  [[noreturn]] static void Execute(const Command& command) {
    std::vector<char*> arguments, environment;
    for (const auto& argument : command.arguments)
      arguments.push_back(const_cast<char*>(argument.c_str()));
    for (const auto& variable : command.environment)
      environment.push_back(const_cast<char*>(variable.c_str()));
    arguments.push_back(nullptr);
    environment.push_back(nullptr);
    first_process::ResetSignals();
    if (chdir(command.directory.c_str()) != 0) {
      dprintf(STDERR_FILENO, "lab: %s: %s\n", command.directory.c_str(), strerror(errno));
      _exit(126);
    }
    environ = environment.data();
    execvp(arguments[0], arguments.data());
    const int error = errno;
    dprintf(STDERR_FILENO, "lab: %s: %s\n", arguments[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
  }

  // A terminal whose last user is gone counts as closed.
  static void DrainOne(int* fd, char type, Channel* channel, bool all) {
    do {
      std::string data;
      first_process::ReadAvailable(fd, kChunk, &data);
      if (data.empty()) return;
      channel->Send(type, data);
    } while (all);
  }

  pid_t pid_ = -1;
  bool terminal_ = false;
  bool end_of_input_ = false;
  int input_ = -1;
  int output_ = -1;
  int error_ = -1;
  std::string pending_;
};

// The command, and all that it starts, stays off the CPUs below `lab.first_cpu`; lab.py says why.
void LeaveFirstCpus() {
  const auto first = first_process::CommandLineOption("lab.first_cpu");
  if (!first) return;
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) Die("sched_getaffinity");
  for (int cpu = 0; cpu < atoi(first->c_str()); ++cpu) CPU_CLR(cpu, &cpus);
  if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) Die("sched_setaffinity");
}

void SetTime(const std::string& nanoseconds) {
  const int64_t now = strtoll(nanoseconds.c_str(), nullptr, 10);
  const timespec time{now / 1'000'000'000, now % 1'000'000'000};
  clock_settime(CLOCK_REALTIME, &time);
}

// What to run, once the time is right too. Input may come before that.
Command ReceiveCommand(Channel* channel, Child* child) {
  std::optional<Command> command;
  char type = 0;
  std::string payload;
  for (bool time_is_right = false; !command || !time_is_right;) {
    while (!channel->Next(&type, &payload)) channel->Receive();
    if (type == 'R') command = ParseCommand(payload);
    if (type == 'I') child->Input(payload);
    if (type == 'T') {
      SetTime(payload);
      time_is_right = true;
    }
  }
  return *std::move(command);
}

// Runs the command to its end and returns its status as a shell would.
int Run(Channel* channel) {
  Child child;
  const Command command = ReceiveCommand(channel, &child);
  const int child_events = first_process::OpenChildEvents();
  if (child_events < 0) Die("signalfd");
  signal(SIGPIPE, SIG_IGN);

  child.Start(command);
  child.Feed();
  char type = 0;
  std::string payload;
  std::vector<pollfd> polls;
  for (;;) {
    while (channel->Next(&type, &payload)) {
      if (type == 'I') child.Input(payload);
      if (type == 'W') child.Resize(ParseWindow(payload));
    }
    polls.clear();
    polls.push_back({child_events, POLLIN, 0});
    if (child.wants_input()) polls.push_back({channel->fd(), POLLIN, 0});
    child.AddPolls(&polls);
    if (poll(polls.data(), polls.size(), -1) < 0) continue;

    bool channel_ready = false;
    for (const pollfd& one : polls) channel_ready |= one.fd == channel->fd() && one.revents != 0;
    if (channel_ready) channel->Receive();
    child.Feed();
    child.Drain(channel, /*all=*/false);
    if (polls[0].revents == 0) continue;

    first_process::ClearChildEvents(child_events);
    int status = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid != child.pid()) continue;  // an orphan
      child.Drain(channel, /*all=*/true);
      return first_process::ShellStatus(status);
    }
  }
}

}  // namespace

int main() {
  if (!Mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") && errno != EBUSY)
    Die("mount /dev");
  const int console = open("/dev/console", O_RDWR | O_CLOEXEC);
  if (console >= 0) {
    for (const int stream : {0, 1, 2}) dup2(console, stream);
  }
  if (!Mount("proc", "/proc", "proc", 0, nullptr) || !Mount("sysfs", "/sys", "sysfs", 0, nullptr))
    Die("mount /proc");
  const std::string started = Clock();
  first_process::LoadModules("/modules.list");
  const std::string loaded = Clock();
  EnterHostRoot();
  Channel channel;
  channel.Open();
  channel.Send('B', "init " + started);
  channel.Send('B', "modules " + loaded);
  MountRest();
  channel.Send('B', "ready " + Clock());
  LeaveFirstCpus();
  const int status = Run(&channel);
  sync();
  channel.Send('X', std::to_string(status));
  // The host ends this machine when it has read that.
  for (;;) pause();
}
