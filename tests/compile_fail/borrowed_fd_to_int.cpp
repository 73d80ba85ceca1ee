// expect: (cannot convert|no viable conversion from) .*BorrowedFd.* to .*int
// A descriptor becomes a number by get() alone.
#include <zerocopy/fd.hpp>

int number(zerocopy::BorrowedFd fd) {
  int raw = fd;
  return raw;
}
