// expect: this type is not a sink
// A path, or a buffer? A span says which.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, std::string& to) { static_cast<void>(zc::transfer(from, to)); }
