// Every crash that a recorded run could have met.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/memory_storage.h"

namespace bothy::disk {

// Shows `look` what is left of the image after each event, in a storage with such `options`, with
// so many fates of what no flush had covered (of the first one all is kept), until something fails
// fatally.
template <typename Look>
void ForEachCrash(const CrashRecorder& recorder, const MemoryStorage::Options& options,
                  uint64_t fates, const Look& look) {
  for (size_t at = 0; at <= recorder.events(); ++at) {
    for (uint64_t fate = 0; fate < fates; ++fate) {
      SCOPED_TRACE(absl::StrCat("after ", at, " of ", recorder.events(), ", fate ", fate));
      MemoryStorage crashed(options);
      recorder.Replay(at, fate, crashed);
      look(crashed);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace bothy::disk
