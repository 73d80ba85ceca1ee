// expect: use of deleted function|call to deleted
// The File would be closed before the transfer begins.
#include <zerocopy/zerocopy.hpp>

zerocopy::FileRange range() { return zerocopy::File::open("a").range(0); }
