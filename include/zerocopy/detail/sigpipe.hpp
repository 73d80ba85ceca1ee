// zerocopy/detail/sigpipe.hpp: keeps SIGPIPE away from the process while a call that can raise it runs.
// Two calls a transfer: block, restore. A SIGPIPE of ours is taken back; one that was pending before stays pending.
// It never touches the signal's disposition, which belongs to the whole process.
#pragma once

#include <zerocopy/config.hpp>

#include <pthread.h>  // pthread_sigmask
#include <signal.h>   // sigset_t, sigtimedwait

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// How many SigpipeGuards of this thread are alive. Under one, transfers make no signal call of their own.
inline thread_local constinit unsigned sigpipe_guards = 0;

class SigpipeBlock {
 public:
  SigpipeBlock() noexcept = default;
  SigpipeBlock(const SigpipeBlock&) = delete;
  SigpipeBlock& operator=(const SigpipeBlock&) = delete;
  ~SigpipeBlock() { end(); }

  // Before the first call that can raise the signal. sigprocmask(2).
  void begin() noexcept {
    if (active_ || sigpipe_guards > 0) return;
    sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &only, &before_);
    active_ = true;
    if (::sigismember(&before_, SIGPIPE) == 1) was_pending_ = is_pending();
  }
  // A call was cut short or failed: the signal may have been raised, also beside a positive count.
  void suspect() noexcept { suspect_ = true; }

  void end() noexcept {
    if (!active_) return;
    active_ = false;
    if (suspect_ && !was_pending_) take_back();
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  static bool is_pending() noexcept {
    sigset_t pending;
    return ::sigpending(&pending) == 0 && ::sigismember(&pending, SIGPIPE) == 1;
  }
  static void take_back() noexcept {
    sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, SIGPIPE);
    const timespec at_once{0, 0};
    ::sigtimedwait(&only, nullptr, &at_once);
  }

 private:
  sigset_t before_;  // set by begin()
  bool active_ = false;
  bool was_pending_ = false;
  bool suspect_ = false;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
