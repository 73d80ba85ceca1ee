// expect: this type is not a sink
// A Pipe is both ends; the writer is the sink.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, zc::Pipe& to) { static_cast<void>(zc::transfer(from, to)); }
