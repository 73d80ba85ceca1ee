// expect: this type is not a source
// Nothing can be read from the writing end.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::PipeWriter& from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
