// expect: this type is not a source
// A path, or bytes? A span says which.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(const std::string& from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
