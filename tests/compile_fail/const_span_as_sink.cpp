// expect: this type is not a sink
// Bytes that are const can't be written.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& from, std::span<const std::byte> to) { static_cast<void>(zc::transfer(from, to)); }
