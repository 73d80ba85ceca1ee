// expect: this type is not a sink
// A number is not a descriptor: BorrowedFd says that it is one.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, int to) { static_cast<void>(zc::transfer(from, to)); }
