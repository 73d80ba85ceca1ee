// expect: this type is not a source
// A Pipe is both ends; the reader is the source.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::Pipe& from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
