// A Socket as a source, to every sink by every strategy.
#include "catch.hpp"
#include "support/matrix.hpp"

namespace {

zerocopy::TransferResult move(matrix::Source& from, matrix::Sink& to, const zerocopy::Options& options,
                              std::error_code& ec) {
  return matrix::to_every_sink(*from.socket, to, options, ec);
}

}  // namespace

TEST_CASE("a TCP socket goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::tcp, move);
}

TEST_CASE("an AF_UNIX stream socket goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::unix_stream, move);
}
