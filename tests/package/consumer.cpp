// What a user's first program does: bytes go into a file, and come out of it into memory.
#include <zerocopy/zerocopy.hpp>

#include <array>
#include <cstddef>
#include <cstdio>
#include <span>

#ifdef CONSUMER_FORMAT
#include <zerocopy/format.hpp>
#endif

namespace zc = zerocopy;

int main() {
  const std::array<std::byte, 3> sent{std::byte{1}, std::byte{2}, std::byte{3}};
  std::array<std::byte, 3> arrived{};

  const auto file = zc::File::temporary();
  const auto stored = zc::transfer(std::span(sent), file);
  const auto loaded = zc::transfer(file.range(0), std::span(arrived));

#ifdef CONSUMER_FORMAT
  std::puts(fmt::format("{}, {}", stored, loaded).c_str());
#endif
  std::printf("zerocopy %s\n", ZEROCOPY_VERSION);
  return stored.delivered == sent.size() && loaded.delivered == sent.size() && arrived == sent ? 0 : 1;
}
