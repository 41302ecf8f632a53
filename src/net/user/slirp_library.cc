#include "net/user/slirp_library.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "support/log.h"

namespace bothy::net {
namespace {

constexpr const char* kSharedObject = "libslirp.so.0";

// GLib's (glib/gmessages.h): how it takes a function for messages, of which a guest can cause any
// number.
using LogFunction = void (*)(const char* domain, int level, const char* message, void* data);
using SetLogFunction = LogFunction (*)(LogFunction function, void* data);

void OnMessage(const char* /*domain*/, int /*level*/, const char* message, void* /*data*/) {
  static LogLimiter& limiter = *new LogLimiter;
  limiter.Log(LogLevel::kWarning, "net", absl::StrCat("libslirp: ", message));
}

template <typename Function>
void Find(void* object, const char* name, Function& function, const char*& missing) {
  function = reinterpret_cast<Function>(::dlsym(object, name));
  if (function == nullptr) missing = name;
}

absl::StatusOr<const SlirpLibrary*> Open() {
  void* object = ::dlopen(kSharedObject, RTLD_NOW | RTLD_LOCAL);
  if (object == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("user-mode networking needs libslirp (Debian: libslirp0): ", ::dlerror()));
  }
  static SlirpLibrary library;
  const char* missing = nullptr;
  Find(object, "slirp_new", library.create, missing);
  Find(object, "slirp_cleanup", library.cleanup, missing);
  Find(object, "slirp_pollfds_fill", library.pollfds_fill, missing);
  Find(object, "slirp_pollfds_poll", library.pollfds_poll, missing);
  Find(object, "slirp_input", library.input, missing);
  Find(object, "slirp_add_hostfwd", library.add_hostfwd, missing);
  Find(object, "slirp_version_string", library.version_string, missing);
  SetLogFunction set_log = nullptr;
  Find(object, "g_log_set_default_handler", set_log, missing);
  if (missing != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(kSharedObject, " has no ", missing, ": install libslirp 4"));
  }
  set_log(&OnMessage, nullptr);
  return &library;
}

}  // namespace

absl::StatusOr<const SlirpLibrary*> SlirpLibrary::Load() {
  // Never closed again: GLib isn't made for that.
  static const absl::StatusOr<const SlirpLibrary*>& loaded =
      *new absl::StatusOr<const SlirpLibrary*>(Open());
  return loaded;
}

std::mutex& SlirpLibrary::mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

}  // namespace bothy::net
