// A BorrowedFd as a source, to every sink by every strategy.
#include "catch.hpp"
#include "support/matrix.hpp"

namespace {

zerocopy::TransferResult move(matrix::Source& from, matrix::Sink& to, const zerocopy::Options& options,
                              std::error_code& ec) {
  zerocopy::BorrowedFd borrowed(from.fd);
  return matrix::to_every_sink(borrowed, to, options, ec);
}

}  // namespace

TEST_CASE("a BorrowedFd of a file goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::borrowed_file, move);
}

TEST_CASE("a BorrowedFd of a pipe goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::borrowed_pipe, move);
}

TEST_CASE("a BorrowedFd of a TCP socket goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::borrowed_tcp, move);
}

TEST_CASE("a BorrowedFd of an AF_UNIX socket goes to every sink by every strategy", "[matrix]") {
  matrix::require_all(matrix::SourceKind::borrowed_unix, move);
}
