// Who may connect(2) to a socket file, beside its owner.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "support/status.h"

namespace bothy {

// Lets each of `uids` read and write the socket file at `path`, by a POSIX access control list; it
// must be this process's own. Root and the owner need no entry, and with nobody else in the list
// nothing changes. `ls -l` shows the mode as srw-rw----+ afterwards; the group still may nothing.
//   FailedPrecondition  the file system knows no access control lists, or `path` isn't a socket of
//                       this process's user
absl::Status GrantAccess(const std::string& path, const std::vector<uid_t>& uids);

}  // namespace bothy
