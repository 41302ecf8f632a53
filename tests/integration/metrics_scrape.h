// MetricsTest: a server with --metrics, and Prometheus' own parser of what it shows.
#pragma once

#include <string>
#include <vector>

#include "metrics/testing/http_client.h"
#include "tests/integration/program.h"
#include "tests/integration/server_test.h"

namespace bothy::integration {

class MetricsTest : public ServerTest {
 protected:
  [[nodiscard]] std::string MetricsPath() const { return folder_ / "metrics.sock"; }
  void Start() { StartServer({"--metrics", "unix:" + MetricsPath()}); }
  // What Prometheus makes of scrapes that were made one after another.
  std::string Parsed(const std::vector<std::string>& scrapes) {
    std::vector<std::string> words = {BOTHY_PROMETHEUS_TEXT};
    for (size_t i = 0; i < scrapes.size(); ++i) {
      words.push_back(folder_.WriteText("scrape" + std::to_string(i), scrapes[i]));
    }
    const ProgramResult result = RunProgram(words);
    EXPECT_EQ(result.status, 0) << result.error_output;
    return result.output;
  }
};

}  // namespace bothy::integration
