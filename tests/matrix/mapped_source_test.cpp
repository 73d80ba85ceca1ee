// A MappedFile as a source, to every sink by every strategy.
#include "catch.hpp"
#include "support/matrix.hpp"

namespace {

zerocopy::TransferResult move(matrix::Source& from, matrix::Sink& to, const zerocopy::Options& options,
                              std::error_code& ec) {
  return matrix::to_every_sink(*from.mapped, to, options, ec);
}

}  // namespace

TEST_CASE("a MappedFile goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::mapped, move);
}
