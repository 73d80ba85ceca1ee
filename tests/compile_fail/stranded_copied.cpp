// expect: use of deleted function|call to .*deleted
// Bytes in flight exist once.
#include <zerocopy/zerocopy.hpp>

void copy(const zerocopy::Stranded& bytes) { zerocopy::Stranded second(bytes); }
