// expect: this type is not a sink
// Nothing can be written into the reading end.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, zc::PipeReader& to) { static_cast<void>(zc::transfer(from, to)); }
