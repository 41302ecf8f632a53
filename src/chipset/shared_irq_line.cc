#include "chipset/shared_irq_line.h"

#include <utility>

namespace bothy::chipset {

class SharedIrqLine::Input : public hypervisor::IrqLine {
 public:
  explicit Input(std::shared_ptr<Output> output) : output_(std::move(output)) {}
  ~Input() override { Set(false); }

  void Set(bool asserted) override {
    std::lock_guard lock(output_->mutex);
    if (asserted == asserted_) return;
    asserted_ = asserted;
    const bool was_high = output_->asserted_inputs != 0;
    output_->asserted_inputs += asserted ? 1 : -1;
    const bool high = output_->asserted_inputs != 0;
    // With the lock held, so that the line sees the changes in the order in which they happened.
    if (high != was_high && output_->line) output_->line->Set(high);
  }

 private:
  const std::shared_ptr<Output> output_;
  bool asserted_ = false;  // guarded by output_->mutex
};

SharedIrqLine::SharedIrqLine(std::unique_ptr<hypervisor::IrqLine> output)
    : output_(std::make_shared<Output>()) {
  output_->line = std::move(output);
}

SharedIrqLine::~SharedIrqLine() {
  std::lock_guard lock(output_->mutex);
  if (output_->asserted_inputs != 0) output_->line->Set(false);
  output_->line.reset();
}

std::unique_ptr<hypervisor::IrqLine> SharedIrqLine::NewInput() {
  return std::make_unique<Input>(output_);
}

}  // namespace bothy::chipset
