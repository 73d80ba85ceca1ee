// expect: this type is not a sink
// A MappedFile is read-only; WritableMappedFile is the sink.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, zc::MappedFile& to) { static_cast<void>(zc::transfer(from, to)); }
