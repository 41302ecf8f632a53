#include "sockets/connect_line.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace bothy::sockets {
namespace {

constexpr std::string_view kWord = "CONNECT";
constexpr std::string_view kBlanks = " \t\r";

std::string_view WithoutBlanks(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Whether `text` begins with kWord, in either case; of a shorter one, whether it may come to that.
bool BeginsWithWord(std::string_view text) {
  const size_t length = std::min(text.size(), kWord.size());
  return std::equal(kWord.begin(), kWord.begin() + length, text.begin(), [](char word, char is) {
    return word == absl::ascii_toupper(static_cast<unsigned char>(is));
  });
}

}  // namespace

std::variant<ConnectLine, NoConnectLine> ParseConnectLine(std::string_view text) {
  const size_t newline = text.substr(0, kMostConnectLine).find('\n');
  if (newline == std::string_view::npos) {
    // Who speaks something else is told before he waits for an answer.
    const bool may_be = text.size() < kMostConnectLine && BeginsWithWord(WithoutBlanks(text));
    return may_be ? NoConnectLine::kUnfinished : NoConnectLine::kMalformed;
  }
  const std::string_view line = WithoutBlanks(text.substr(0, newline));
  if (line.size() < kWord.size() || !BeginsWithWord(line)) return NoConnectLine::kMalformed;
  const std::string_view rest = line.substr(kWord.size());
  const std::string_view digits = WithoutBlanks(rest);
  if (digits.size() == rest.size()) return NoConnectLine::kMalformed;  // nothing between
  uint32_t port = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, port);
  if (error != std::errc() || stop != end) return NoConnectLine::kMalformed;
  return ConnectLine{.port = port, .bytes = newline + 1};
}

std::string ConnectAnswer(uint32_t host_port) { return absl::StrCat("OK ", host_port, "\n"); }

}  // namespace bothy::sockets
