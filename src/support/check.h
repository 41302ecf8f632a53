// CHECK: a broken invariant of ours ends the process, in release builds too.
//
// Never for input: whatever a guest, a peer, an image or a caller can cause is an absl::Status
// instead.
#pragma once

namespace bothy {

// Writes "file:line: CHECK failed: text" to standard error and aborts. Async-signal-safe.
[[noreturn]] void CheckFailed(const char* file, int line, const char* text);

}  // namespace bothy

#define CHECK(condition)                                    \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::bothy::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_OK(status) CHECK((status).ok())
