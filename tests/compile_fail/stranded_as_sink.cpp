// expect: this type is not a sink
// Stranded bytes are only ever delivered.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, zc::Stranded& to) { static_cast<void>(zc::transfer(from, to)); }
