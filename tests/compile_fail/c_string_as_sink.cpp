// expect: this type is not a sink
// A path is opened first: File::create.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, const char* to) { static_cast<void>(zc::transfer(from, to)); }
