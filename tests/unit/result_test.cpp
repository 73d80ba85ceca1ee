#include <zerocopy/result.hpp>

#include "catch.hpp"

#include <iterator>
#include <vector>

using namespace zerocopy;

TEST_CASE("a trail is a range of strategies with their errors", "[result]") {
  FallbackTrail trail;
  CHECK(trail.empty());
  trail.add(Strategy::reflink, detail::Cause(EOPNOTSUPP));
  trail.add(Strategy::splice, detail::Cause(Errc::end_not_seen));
  REQUIRE(trail.size() == 2);
  std::vector<FallbackStep> steps(trail.begin(), trail.end());
  CHECK(steps[0].strategy == Strategy::reflink);
  CHECK(steps[0].error == std::errc::operation_not_supported);
  CHECK(steps[1].error == Errc::end_not_seen);
  FallbackTrail other;
  other.add(Strategy::reflink, detail::Cause(EXDEV));
  other.add(Strategy::sendfile, detail::Cause(EINVAL));
  trail.append(other);
  REQUIRE(trail.size() == 3);
  CHECK(trail[2].strategy == Strategy::sendfile);
}

TEST_CASE("a trail holds every strategy once and never more", "[result]") {
  FallbackTrail trail;
  for (int i = 0; i < 30; ++i) trail.add(Strategy::splice, detail::Cause(EINVAL));
  CHECK(trail.size() == strategy_count);
}

TEST_CASE("a moved-from Stranded is empty", "[result]") {
  Stranded empty;
  CHECK(empty.size() == 0);
  CHECK(empty.empty());
  Stranded other(std::move(empty));
  CHECK(other.empty());
}

TEST_CASE("a TransferError carries the whole result, also when it is copied", "[result]") {
  TransferResult result;
  result.delivered = 7;
  result.reason = StopReason::sink_closed;
  result.error = std::error_code(EPIPE, std::system_category());
  const TransferError error(std::move(result), "sending");
  const TransferError copy = error;
  CHECK(copy.result().delivered == 7);
  CHECK(copy.code() == Errc::sink_closed);
  CHECK(std::string(copy.what()).find("sending") != std::string::npos);
}

TEST_CASE("reasons and sides have names", "[result]") {
  CHECK(to_string(StopReason::source_truncated) == "source_truncated");
  CHECK(to_string(Side::sink) == "sink");
}
