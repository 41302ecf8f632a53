#include "chipset/shared_irq_line.h"

#include <gtest/gtest.h>

#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

TEST(SharedIrqLineTest, IsHighWhileAnyInputIs) {
  FakeIrq irq;
  SharedIrqLine shared(irq.NewLine());
  auto a = shared.NewInput();
  auto b = shared.NewInput();
  a->Set(true);
  a->Set(true);
  EXPECT_TRUE(irq.asserted());
  b->Set(true);
  a->Set(false);
  EXPECT_TRUE(irq.asserted());
  EXPECT_EQ(irq.edges(), 1);
  b->Set(false);
  b->Set(false);
  EXPECT_FALSE(irq.asserted());
  a->Set(true);
  EXPECT_EQ(irq.edges(), 2);
}

TEST(SharedIrqLineTest, AnInputThatGoesLetsGo) {
  FakeIrq irq;
  SharedIrqLine shared(irq.NewLine());
  auto a = shared.NewInput();
  a->Set(true);
  a.reset();
  EXPECT_FALSE(irq.asserted());
}

TEST(SharedIrqLineTest, InputsMayOutliveIt) {
  FakeIrq irq;
  auto shared = std::make_unique<SharedIrqLine>(irq.NewLine());
  auto a = shared->NewInput();
  a->Set(true);
  shared.reset();
  EXPECT_FALSE(irq.asserted());
  a->Set(false);
  a->Set(true);
  EXPECT_FALSE(irq.asserted());
}

}  // namespace
}  // namespace bothy::chipset
