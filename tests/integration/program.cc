#include "tests/integration/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"
#include "support/unique_fd.h"

namespace bothy::integration {
namespace {

std::string Contents(const UniqueFd& file) {
  std::string text;
  char buffer[4096];
  for (ssize_t n;
       (n = ::pread(file.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

}  // namespace

ProgramResult RunProgram(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const UniqueFd output(::memfd_create("output", MFD_CLOEXEC));
  const UniqueFd error_output(::memfd_create("error-output", MFD_CLOEXEC));
  posix_spawn_file_actions_t actions;
  CHECK(::posix_spawn_file_actions_init(&actions) == 0);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, error_output.get(), STDERR_FILENO);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ProgramResult result;
  if (error != 0) {
    result.status = -1;
    result.error_output = words[0] + " can't be started";
    return result;
  }
  CHECK(::waitpid(pid, &result.status, 0) == pid);
  result.output = Contents(output);
  result.error_output = Contents(error_output);
  return result;
}

}  // namespace bothy::integration
