// expect: this type is not a source
// A path is opened first: File::open.
#include <zerocopy/zerocopy.hpp>

#include <string>

namespace zc = zerocopy;

void move(zc::File& to) { static_cast<void>(zc::transfer("video.mp4", to)); }
