// expect: discard|nodiscard|unused-result|unused-value
// A result holds stranded bytes and the count: not looking at it is said.
#pragma GCC diagnostic error "-Wunused-result"
#include <zerocopy/zerocopy.hpp>

void move(zerocopy::File& from, zerocopy::File& to) { zerocopy::transfer(from, to); }
