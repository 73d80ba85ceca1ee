#include <zerocopy/fd.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <fcntl.h>

#include <type_traits>
#include <utility>

namespace zc = zerocopy;

namespace {
int some_descriptor() { return ::open("/dev/null", O_RDWR | O_CLOEXEC); }

template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };
}  // namespace

TEST_CASE("An OwnedFd closes its descriptor", "[fd]") {
  const int number = some_descriptor();
  {
    const zc::OwnedFd fd(number);
    CHECK(fd.get() == number);
    CHECK(static_cast<bool>(fd));
    CHECK(checks::is_open(number));
  }
  CHECK_FALSE(checks::is_open(number));
}

TEST_CASE("An empty OwnedFd holds nothing and closes nothing", "[fd]") {
  const zc::OwnedFd fd;
  CHECK(fd.get() == -1);
  CHECK_FALSE(static_cast<bool>(fd));
  CHECK_FALSE(static_cast<bool>(fd.as_fd()));
}

TEST_CASE("A moved-from OwnedFd is empty and the target owns", "[fd]") {
  const int number = some_descriptor();
  zc::OwnedFd first(number);
  zc::OwnedFd second(std::move(first));
  CHECK(first.get() == -1);
  CHECK(second.get() == number);

  const int replaced = some_descriptor();
  zc::OwnedFd third(replaced);
  third = std::move(second);
  CHECK(third.get() == number);
  CHECK_FALSE(checks::is_open(replaced));
  CHECK(checks::is_open(number));

  zc::OwnedFd& itself = third;
  third = std::move(itself);
  CHECK(third.get() == number);
  CHECK(checks::is_open(number));
}

TEST_CASE("release gives an OwnedFd's descriptor up, reset closes and replaces it", "[fd]") {
  const int number = some_descriptor();
  zc::OwnedFd fd(number);
  CHECK(fd.release() == number);
  CHECK_FALSE(static_cast<bool>(fd));
  CHECK(checks::is_open(number));

  fd.reset(number);
  const int other = some_descriptor();
  fd.reset(other);
  CHECK_FALSE(checks::is_open(number));
  CHECK(fd.get() == other);
  fd.reset();
  CHECK_FALSE(checks::is_open(other));
}

TEST_CASE("A BorrowedFd closes nothing", "[fd]") {
  const zc::OwnedFd owner(some_descriptor());
  {
    const zc::BorrowedFd lent = owner.as_fd();
    CHECK(lent.get() == owner.get());
  }
  CHECK(checks::is_open(owner.get()));
}

TEST_CASE("Descriptors do not turn into int, and temporaries lend nothing", "[fd]") {
  STATIC_REQUIRE_FALSE(std::is_convertible_v<zc::OwnedFd, int>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<zc::BorrowedFd, int>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<int, zc::OwnedFd>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<int, zc::BorrowedFd>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::OwnedFd>);
  STATIC_REQUIRE_FALSE(std::is_copy_assignable_v<zc::OwnedFd>);
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::OwnedFd>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::OwnedFd>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<zc::BorrowedFd>);
  STATIC_REQUIRE(lends_a_descriptor<zc::OwnedFd&>);
  STATIC_REQUIRE(lends_a_descriptor<const zc::OwnedFd&>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::OwnedFd>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<const zc::OwnedFd>);
}
