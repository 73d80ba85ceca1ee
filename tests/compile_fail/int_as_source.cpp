// expect: this type is not a source
// A number is not a descriptor: BorrowedFd says that it is one.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(int from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
