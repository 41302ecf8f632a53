// What a first process (PID 1) of a bare kernel needs before there is a user space: mounts,
// modules, the kernel command line, base64. Used by the guest's agent and by the lab's init, both
// small static programs.
//
// Nothing here throws or allocates on a failure path; errors are errno, as in the system calls
// underneath.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace first_process {

// Whole contents of a file, empty when it can't be read. For /proc and /sys, where sizes lie.
std::string ReadFile(const char* path);

// The names in a directory, without those that begin with a dot.
std::vector<std::string> ListDirectory(const char* path);

// False, with errno, when the file can't be opened or takes less than all of `text`.
bool WriteFile(const char* path, std::string_view text);

// Writes all of `data` to a blocking descriptor. False, with errno, when the other end is gone.
bool WriteAll(int fd, std::string_view data);

// mount(2) on a directory that is made when it isn't there.
bool Mount(const char* source, const char* target, const char* type, unsigned long flags,
           const char* options);

// Waits until there is such a file; its directory must be there. For device nodes, which appear
// some time after their drivers.
void AwaitFile(const std::string& path);

// The value of `name=value` in a kernel command line; "" for a bare `name`. The last one wins.
// A value may be quoted as the kernel has it: name="a b".
std::optional<std::string> Option(std::string_view command_line, std::string_view name);
// The same in /proc/cmdline.
std::optional<std::string> CommandLineOption(std::string_view name);

// Loads a module with finit_module(2). A module that is there already counts as loaded.
bool LoadModule(const char* path);

// Loads the modules named in `list_path`, one path a line in dependency order. Returns those that
// wouldn't load: a module for another CPU's virtualization is expected to refuse.
std::vector<std::string> LoadModules(const char* list_path);

std::string Base64Encode(std::string_view data);

// %41 → A. Anything that isn't a percent sign and two hexadecimal digits stays.
std::string PercentDecode(std::string_view text);

// A descriptor that becomes readable when a child ends, in place of SIGCHLD, which it blocks.
// Children must call ResetSignals before they execute anything.
int OpenChildEvents();
void ResetSignals();
// Empties what OpenChildEvents returned.
void ClearChildEvents(int fd);

// What waitpid said, as a shell has it: 128 + the signal's number for a death by signal.
int ShellStatus(int wait_status);

// Runs a program, found by $PATH, to its end with this process's own standard streams; the status
// as a shell has it.
int RunProgram(const std::vector<std::string>& arguments);

// A socket on which the kernel tells of its devices' comings and goings (uevents): datagrams that
// begin with "add@" or "remove@" and the path in /sys, then NAME=VALUE, each NUL-terminated. -1
// with errno.
int OpenDeviceEvents();

// Reads from a non-blocking `*fd` what is there, up to `limit` bytes, and appends it to `data`. At
// the end of the stream it closes the descriptor and sets it to -1.
void ReadAvailable(int* fd, size_t limit, std::string* data);

// Brings the loopback interface up.
bool RaiseLoopback();

}  // namespace first_process
