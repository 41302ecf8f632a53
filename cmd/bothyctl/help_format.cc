#include "cmd/bothyctl/help_format.h"

#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kNameWidth = 30;

}  // namespace

std::string Wrap(const std::string& text, size_t width, size_t indent) {
  std::string wrapped;
  size_t column = indent;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const size_t size = end - at;
    if (column > indent && column + 1 + size > width) {
      absl::StrAppend(&wrapped, "\n", std::string(indent, ' '));
      column = indent;
    } else if (column > indent) {
      wrapped += ' ';
      ++column;
    }
    wrapped.append(text, at, size);
    column += size;
    at = end + 1;
  }
  return wrapped;
}

HelpFormat::HelpFormat() { column_width(kNameWidth); }

std::string HelpFormat::Entry(const std::string& name, const std::string& description) const {
  std::string entry = "  " + name;
  if (entry.size() + 2 > kNameWidth) {
    absl::StrAppend(&entry, "\n", std::string(kNameWidth, ' '));
  } else {
    entry.append(kNameWidth - entry.size(), ' ');
  }
  return absl::StrCat(entry, Wrap(description, kWidth, kNameWidth), "\n");
}

std::string HelpFormat::make_option(const CLI::Option* option, bool is_positional) const {
  return Entry(make_option_name(option, is_positional) + make_option_opts(option),
               make_option_desc(option));
}

std::string HelpFormat::make_option_opts(const CLI::Option* option) const {
  std::string text;
  if (option->get_type_size() != 0 && !option->get_type_name().empty()) {
    absl::StrAppend(&text, " ", option->get_type_name());
  }
  if (!option->get_envname().empty()) absl::StrAppend(&text, " (or $", option->get_envname(), ")");
  return text;
}

std::string HelpFormat::make_subcommand(const CLI::App* verb) const {
  return Entry(verb->get_name(), verb->get_description());
}

}  // namespace bothy::bothyctl
