#include <zerocopy/sigpipe_guard.hpp>

#include "catch.hpp"

#include <signal.h>
#include <unistd.h>

namespace {

bool is_blocked() {
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  return sigismember(&now, SIGPIPE) == 1;
}
void write_into_closed_pipe() {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  close(ends[0]);
  CHECK(write(ends[1], "x", 1) == -1);
  close(ends[1]);
}

}  // namespace

TEST_CASE("SIGPIPE is blocked in a guard's scope and the mask is put back", "[sigpipe_guard]") {
  REQUIRE_FALSE(is_blocked());
  {
    zerocopy::SigpipeGuard guard;
    CHECK(is_blocked());
    zerocopy::SigpipeGuard nested;
    CHECK(is_blocked());
  }
  CHECK_FALSE(is_blocked());
}

TEST_CASE("a SIGPIPE raised under a guard never arrives", "[sigpipe_guard]") {
  {
    zerocopy::SigpipeGuard guard;
    write_into_closed_pipe();
    CHECK(zerocopy::detail::SigpipeBlock::is_pending());
  }
  CHECK_FALSE(zerocopy::detail::SigpipeBlock::is_pending());  // and this process lives
}

TEST_CASE("a SIGPIPE that was pending before stays pending, and a mask of the caller's stays", "[sigpipe_guard]") {
  sigset_t only;
  sigset_t before;
  sigemptyset(&only);
  sigaddset(&only, SIGPIPE);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &only, &before) == 0);
  write_into_closed_pipe();
  {
    zerocopy::SigpipeGuard guard;
    write_into_closed_pipe();
  }
  CHECK(is_blocked());
  CHECK(zerocopy::detail::SigpipeBlock::is_pending());
  zerocopy::detail::SigpipeBlock::take_back();
  CHECK_FALSE(zerocopy::detail::SigpipeBlock::is_pending());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
