// expect: this type is not a sink
// Connections come from a Listener, bytes go nowhere.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, zc::Listener& to) { static_cast<void>(zc::transfer(from, to)); }
