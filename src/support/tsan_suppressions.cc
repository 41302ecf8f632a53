// What ThreadSanitizer can't see: linked into every program of the tsan preset
// (cmake/Targets.cmake).

extern "C" const char* __tsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)

// absl::Status counts its references partly in the header, which is instrumented, and partly in
// Debian's library, which isn't: the last one to let go seems to race with all before it.
extern "C" const char* __tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "race:absl::*::Status::Unref\n";
}
