#include "tests/guest/net_programs.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace net_programs {
namespace {

// A struct ethtool_rxfh, which ends in the table and the key.
class Scaling {
 public:
  // The sizes are as the card says.
  explicit Scaling(const char* card) : card_(card), socket_(socket(AF_INET, SOCK_DGRAM, 0)) {
    memory_.resize(sizeof(ethtool_rxfh));
  }
  ~Scaling() { close(socket_); }

  bool Read() {
    // Once for the sizes.
    if (!Call(ETHTOOL_GRSSH)) return false;
    memory_.resize(sizeof(ethtool_rxfh) + entries() * sizeof(uint32_t) + header()->key_size);
    return Call(ETHTOOL_GRSSH);
  }
  // The table as it is there; the key stays.
  bool Write() {
    header()->key_size = 0;
    header()->hfunc = 0;
    return Call(ETHTOOL_SRSSH);
  }

  [[nodiscard]] uint32_t entries() { return header()->indir_size; }
  [[nodiscard]] uint32_t* table() { return header()->rss_config; }
  [[nodiscard]] uint32_t key_bytes() { return header()->key_size; }

 private:
  ethtool_rxfh* header() { return reinterpret_cast<ethtool_rxfh*>(memory_.data()); }
  bool Call(uint32_t command) {
    header()->cmd = command;
    ifreq request{};
    strncpy(request.ifr_name, card_, sizeof request.ifr_name - 1);
    request.ifr_data = reinterpret_cast<char*>(memory_.data());
    return ioctl(socket_, SIOCETHTOOL, &request) == 0;
  }

  const char* card_;
  int socket_;
  std::vector<uint8_t> memory_;
};

int Rss(int argc, char** argv) {
  Scaling scaling(argv[1]);
  if (!scaling.Read()) {
    fprintf(stderr, "rss: reading: %s\n", strerror(errno));
    return 1;
  }
  const int queues = argc - 2;
  if (queues > 0) {
    for (uint32_t i = 0; i < scaling.entries(); ++i) {
      const char* const queue = argv[2 + i % static_cast<uint32_t>(queues)];
      scaling.table()[i] = static_cast<uint32_t>(strtoul(queue, nullptr, 10));
    }
    if (scaling.Write()) return 0;
    fprintf(stderr, "rss: writing: %s\n", strerror(errno));
    return 1;
  }
  printf("key %u\ntable", scaling.key_bytes());
  for (uint32_t i = 0; i < scaling.entries(); ++i) printf(" %u", scaling.table()[i]);
  printf("\n");
  return 0;
}

}  // namespace

int Main(int argc, char** argv) {
  if (argc >= 2) return Rss(argc, argv);
  fprintf(stderr, "usage: rss CARD [QUEUE...]\n");
  return 2;
}

}  // namespace net_programs
