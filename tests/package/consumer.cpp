// What a user's first program does: bytes go into a file, and come out of it into memory.
#include <zerocopy/zerocopy.hpp>

#include <array>
#include <cstddef>
#include <cstdio>

#ifdef CONSUMER_FORMAT
#include <zerocopy/format.hpp>
#endif

namespace zc = zerocopy;

int main() {
  const std::array<std::byte, 3> sent{std::byte{1}, std::byte{2}, std::byte{3}};
  std::array<std::byte, 3> arrived{};

  const auto file = zc::File::temporary();
  zc::transfer(std::span(sent), file);
  const auto result = zc::transfer(file.range(0), std::span(arrived));

  std::printf("zerocopy %s: %llu bytes\n", ZEROCOPY_VERSION, static_cast<unsigned long long>(result.delivered));
  return arrived == sent ? 0 : 1;
}
