#include "support/check.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace bothy {

void CheckFailed(const char* file, int line, const char* text) {
  char message[512];
  const int length =
      std::snprintf(message, sizeof message, "%s:%d: CHECK failed: %s\n", file, line, text);
  if (length > 0) {
    [[maybe_unused]] const ssize_t written =
        ::write(STDERR_FILENO, message,
                static_cast<size_t>(length) < sizeof message ? static_cast<size_t>(length)
                                                             : sizeof message - 1);
  }
  std::abort();
}

}  // namespace bothy
