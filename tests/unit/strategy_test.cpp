#include <zerocopy/strategy.hpp>

#include "catch.hpp"

#include <set>
#include <string>

using namespace zerocopy;

TEST_CASE("a set of strategies holds what was put in", "[strategy]") {
  StrategySet set{Strategy::sendfile, Strategy::splice};
  CHECK(set.contains(Strategy::sendfile));
  CHECK_FALSE(set.contains(Strategy::read_write));
  set.erase(Strategy::sendfile).insert(Strategy::read_write);
  CHECK(set == StrategySet{Strategy::splice, Strategy::read_write});
  CHECK((StrategySet::all() - set).contains(Strategy::sendfile));
  CHECK_FALSE((StrategySet::all() - set).contains(Strategy::splice));
  CHECK((set & StrategySet{Strategy::splice}) == StrategySet{Strategy::splice});
  CHECK((set | StrategySet{Strategy::reflink}).contains(Strategy::reflink));
  CHECK(StrategySet().empty());
}

TEST_CASE("every strategy is in the full set and has a name of its own", "[strategy]") {
  std::set<std::string> names;
  for (std::size_t i = 0; i < strategy_count; ++i) {
    const auto s = static_cast<Strategy>(i);
    CHECK(StrategySet::all().contains(s));
    CHECK(names.insert(std::string(to_string(s))).second);
  }
  CHECK(names.count("unknown") == 0);
  CHECK(to_string(Strategy::copy_file_range) == "copy_file_range");
}
