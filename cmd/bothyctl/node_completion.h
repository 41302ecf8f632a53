// Completion of paths in the state tree, from the server that the command line names.
#pragma once

#include <string>
#include <vector>

#include "cmd/bothyctl/completion.h"

namespace bothy::bothyctl {

// The server's socket that `words` (as for Complete) name with --address or -a, else the
// environment's BOTHY_ADDRESS; empty: none. A shell leaves "~/" in words that it completes.
[[nodiscard]] std::string ServerOf(const std::vector<std::string>& words);

// The nodes that begin with `path`, one level: folders end with "/". Nothing when the server can't
// be asked, or takes longer than a person would wait for a key.
[[nodiscard]] std::vector<Completion::Candidate> CompleteNodes(const std::string& server,
                                                               const std::string& path);

}  // namespace bothy::bothyctl
