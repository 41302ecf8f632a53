#include "tests/guest/first_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace first_process {
namespace {

constexpr std::string_view kBase64Digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string ReadFile(const char* path) {
  std::string text;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return text;
}

std::vector<std::string> ListDirectory(const char* path) {
  std::vector<std::string> names;
  DIR* directory = opendir(path);
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  closedir(directory);
  return names;
}

bool WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool WriteFile(const char* path, std::string_view text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = WriteAll(fd, text);
  const int error = errno;
  close(fd);
  errno = error;
  return written;
}

bool Mount(const char* source, const char* target, const char* type, unsigned long flags,
           const char* options) {
  if (mkdir(target, 0755) != 0 && errno != EEXIST) return false;
  return mount(source, target, type, flags, options) == 0;
}

void AwaitFile(const std::string& path) {
  const int watch = inotify_init1(IN_CLOEXEC);
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  if (watch >= 0 && inotify_add_watch(watch, directory.c_str(), IN_CREATE | IN_MOVED_TO) >= 0) {
    // What is made between the look and the read is an event already.
    char events[4096];
    while (access(path.c_str(), F_OK) != 0) {
      if (read(watch, events, sizeof events) < 0 && errno != EINTR) break;
    }
  }
  if (watch >= 0) close(watch);
}

std::optional<std::string> CommandLineOption(std::string_view name) {
  return Option(ReadFile("/proc/cmdline"), name);
}

std::optional<std::string> Option(std::string_view command_line, std::string_view name) {
  std::optional<std::string> value;
  std::string word;
  bool quoted = false;
  const auto finish_word = [&] {
    const std::string_view whole = word;
    if (whole.substr(0, name.size()) == name) {
      const std::string_view rest = whole.substr(name.size());
      if (rest.empty())
        value = "";
      else if (rest.front() == '=')
        value = rest.substr(1);
    }
    word.clear();
  };
  for (const char c : command_line) {
    if (c == '"')
      quoted = !quoted;
    else if (!quoted && (c == ' ' || c == '\n'))
      finish_word();
    else
      word += c;
  }
  finish_word();
  return value;
}

bool LoadModule(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool loaded = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
  const int error = errno;
  close(fd);
  errno = error;
  return loaded;
}

std::vector<std::string> LoadModules(const char* list_path) {
  std::vector<std::string> refused;
  const std::string list = ReadFile(list_path);
  for (size_t begin = 0; begin < list.size();) {
    size_t end = list.find('\n', begin);
    if (end == std::string::npos) end = list.size();
    const std::string path = list.substr(begin, end - begin);
    begin = end + 1;
    if (!path.empty() && !LoadModule(path.c_str())) refused.push_back(path);
  }
  return refused;
}

std::string Base64Encode(std::string_view data) {
  std::string text;
  text.reserve((data.size() + 2) / 3 * 4);
  for (size_t i = 0; i < data.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j)
      bits = bits << 8 | (i + j < data.size() ? static_cast<uint8_t>(data[i + j]) : 0U);
    for (size_t j = 0; j < 4; ++j)
      text += i + j <= data.size() ? kBase64Digits[bits >> (18 - 6 * j) & 0x3f] : '=';
  }
  return text;
}

std::string PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && isxdigit(text[i + 1]) && isxdigit(text[i + 2])) {
      const char digits[] = {text[i + 1], text[i + 2], 0};
      decoded += static_cast<char>(strtoul(digits, nullptr, 16));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

int OpenChildEvents() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

void ResetSignals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
}

void ClearChildEvents(int fd) {
  signalfd_siginfo event;
  while (read(fd, &event, sizeof event) > 0) continue;
}

int ShellStatus(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

int RunProgram(const std::vector<std::string>& arguments) {
  const pid_t pid = fork();
  if (pid == 0) {
    ResetSignals();
    std::vector<char*> pointers;
    for (const auto& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    execvp(pointers[0], pointers.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return ShellStatus(status);
}

int OpenDeviceEvents() {
  const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;
  if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

void ReadAvailable(int* fd, size_t limit, std::string* data) {
  char buffer[4096];
  while (*fd >= 0 && limit > 0) {
    const ssize_t n = read(*fd, buffer, limit < sizeof buffer ? limit : sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      close(*fd);
      *fd = -1;
      return;
    }
    data->append(buffer, static_cast<size_t>(n));
    limit -= static_cast<size_t>(n);
  }
}

bool RaiseLoopback() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  const bool up = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  close(fd);
  return up;
}

}  // namespace first_process
