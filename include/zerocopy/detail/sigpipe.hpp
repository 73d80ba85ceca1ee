// zerocopy/detail/sigpipe.hpp: keeps SIGPIPE away from the process while a call that can raise it runs.
// Two calls a transfer: block, restore. A SIGPIPE of ours is taken back; one that was pending before stays pending.
// It never touches the signal's disposition, which belongs to the whole process.
#pragma once

#include <zerocopy/config.hpp>

#include <signal.h>       // sigtimedwait
#include <sys/syscall.h>  // rt_sigprocmask
#include <unistd.h>       // syscall

#include <cstdint>  // std::uint64_t

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
  [[gnu::always_inline]] void begin() noexcept {
    if (!active_ && sigpipe_guards == 0) block();
  }
  // A call was cut short or failed: the signal may have been raised, also beside a positive count. Or a later call on
  // the same socket did not fail: it was not shut down, so nothing was raised.
  void suspect(bool raised = true) noexcept { suspect_ = raised; }

  void end() noexcept {
    if (!active_) return;
    active_ = false;
    if (suspect_ && !was_pending_) take_back();
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(KernelMask));
  }

  // The same, and ready to begin again.
  void end_step() noexcept {
    end();
    suspect_ = was_pending_ = false;
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
  [[gnu::always_inline]] void block() noexcept {
    const KernelMask only = sigpipe_bit;
    ::syscall(SYS_rt_sigprocmask, SIG_BLOCK, &only, &before_, sizeof(KernelMask));
    active_ = true;
    if ((before_ & sigpipe_bit) != 0) was_pending_ = is_pending();
  }
  // The kernel's own signal set, for half the instructions of pthread_sigmask.
  using KernelMask = std::uint64_t;
  static constexpr KernelMask sigpipe_bit = KernelMask{1} << (SIGPIPE - 1);

  KernelMask before_ = 0;
  bool active_ = false;
  bool was_pending_ = false;
  bool suspect_ = false;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
