// expect: this type is not a source
// Bytes are std::byte: std::as_bytes makes them.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(std::span<const int> from, zc::File& to) { static_cast<void>(zc::transfer(from, to)); }
