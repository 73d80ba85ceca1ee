// Stranded bytes as a source, to every sink by every strategy.
#include "catch.hpp"
#include "support/matrix.hpp"

namespace {

zerocopy::TransferResult move(matrix::Source& from, matrix::Sink& to, const zerocopy::Options& options,
                              std::error_code& ec) {
  return matrix::to_every_sink(*from.stranded, to, options, ec);
}

}  // namespace

TEST_CASE("Stranded in a buffer goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::stranded_buffer, move);
}

TEST_CASE("Stranded in a pipe goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::stranded_pipe, move);
}
