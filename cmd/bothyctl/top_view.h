// What `bothyctl top` shows: a line a server, and below it, where there is but one, its processors,
// disks and network cards.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cmd/bothyctl/screen_text.h"
#include "cmd/bothyctl/top_sample.h"

namespace bothy::bothyctl {

struct TopServer {
  std::string address;
  std::string error;              // why there are no figures; empty: there are, or will be soon
  std::optional<TopRates> rates;  // none yet
};

// Lines, each at most `size.columns` wide and with a newline; text that isn't ours is made harmless
// for a terminal. `clock` is the time of day to show.
std::string TopText(const std::vector<TopServer>& servers, const std::string& clock,
                    const ScreenSize& size);
// One line of JSON: {"servers": [...]}, all figures of a second.
std::string TopJson(const std::vector<TopServer>& servers);

// In at most five characters: "0", "999", "1.2k", "34k", "5.6M".
std::string ShortRate(double rate);

}  // namespace bothy::bothyctl
