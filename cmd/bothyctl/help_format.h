// HelpFormat: CLI11's help, with descriptions wrapped to a width that reads well.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace bothy::bothyctl {

// `text` in lines of at most `width` columns where words allow; lines after the first begin with
// `indent` spaces, which count. No newline at the end.
std::string Wrap(const std::string& text, size_t width, size_t indent);

class HelpFormat : public CLI::Formatter {
 public:
  HelpFormat();
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_option_opts(const CLI::Option* option) const override;
  std::string make_subcommand(const CLI::App* verb) const override;

 private:
  [[nodiscard]] std::string Entry(const std::string& name, const std::string& description) const;
};

}  // namespace bothy::bothyctl
