#include <zerocopy/detail/errno_table.hpp>

#include "catch.hpp"

#include <string>

using namespace zerocopy;
using namespace zerocopy::detail;

namespace {

constexpr Strategy every_strategy[] = {
    Strategy::reflink,    Strategy::copy_file_range, Strategy::sendfile, Strategy::splice,    Strategy::vmsplice,
    Strategy::mmap_write, Strategy::send_zerocopy,   Strategy::io_uring, Strategy::direct_io, Strategy::read_write};

}  // namespace

TEST_CASE("a real failure stops every strategy", "[errno_table]") {
  for (const int error : {EIO, ENOSPC, EDQUOT, EFBIG, EPIPE, ECONNRESET, EMSGSIZE, EISDIR, ENOTCONN})
    for (const Strategy s : every_strategy) {
      CAPTURE(error, to_string(s));
      CHECK(verdict(s, error, false) == Verdict::failed);
    }
}

TEST_CASE("an errno that nobody knows stops every strategy", "[errno_table]") {
  for (const Strategy s : every_strategy) CHECK(verdict(s, 9999, false) == Verdict::failed);
}

TEST_CASE("EAGAIN waits, ENOBUFS waits for zero-copy sends only", "[errno_table]") {
  for (const Strategy s : every_strategy) {
    CHECK(verdict(s, EAGAIN, false) == Verdict::blocked);
    CHECK(verdict(s, ENOBUFS, false) == (s == Strategy::send_zerocopy ? Verdict::blocked : Verdict::failed));
  }
}

TEST_CASE("refusals lead to the next strategy", "[errno_table]") {
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP, EXDEV, EPERM, EACCES})
    for (const Strategy s : every_strategy) {
      CAPTURE(error, to_string(s));
      CHECK(verdict(s, error, false) == Verdict::unsupported);
    }
  CHECK(verdict(Strategy::copy_file_range, EBADF, false) == Verdict::unsupported);  // O_APPEND
  CHECK(verdict(Strategy::sendfile, EBADF, false) == Verdict::failed);
  CHECK(verdict(Strategy::copy_file_range, ETXTBSY, false) == Verdict::unsupported);  // a swap file as the source
  CHECK(verdict(Strategy::read_write, ETXTBSY, false) == Verdict::failed);
  CHECK(verdict(Strategy::splice, EMFILE, false) == Verdict::unsupported);  // no descriptor for the pipe
  CHECK(verdict(Strategy::read_write, EMFILE, false) == Verdict::failed);
  CHECK(verdict(Strategy::mmap_write, ENODEV, false) == Verdict::unsupported);
}

TEST_CASE("a fault on a mapped file is the end of a file that became shorter, elsewhere a failure", "[errno_table]") {
  for (const Strategy s : every_strategy) {
    CHECK(verdict(s, EFAULT, true) == Verdict::end);
    CHECK(verdict(s, EFAULT, false) == Verdict::failed);
  }
}

TEST_CASE("every row of the table has a strategy, and no errno stands twice for one", "[errno_table]") {
  for (const ErrnoRow& row : errno_table) {
    CHECK_FALSE(row.only.empty());
    CHECK(row.verdict != Verdict::moved);
    for (const ErrnoRow& other : errno_table)
      if (&other != &row && other.error == row.error) CHECK((other.only & row.only).empty());
  }
}
