// Memory as a source, to every sink by every strategy.
#include "catch.hpp"
#include "support/matrix.hpp"

namespace {

zerocopy::TransferResult move(matrix::Source& from, matrix::Sink& to, const zerocopy::Options& options,
                              std::error_code& ec) {
  return matrix::to_every_sink(from.content, to, options, ec);
}

}  // namespace

TEST_CASE("a span goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::memory, move);
}
