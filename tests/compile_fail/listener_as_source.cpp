// expect: this type is not a source
// Connections come from a Listener, not bytes.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::Listener& from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
