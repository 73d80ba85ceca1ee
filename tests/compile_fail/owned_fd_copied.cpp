// expect: use of deleted function|call to .*deleted
// One owner closes, once.
#include <zerocopy/fd.hpp>

#include <utility>

void copy(const zerocopy::OwnedFd& fd) { zerocopy::OwnedFd second(fd); }
