// zerocopy/sigpipe_guard.hpp: holds SIGPIPE back in one thread for as long as a scope lasts.
// It never touches the signal's disposition or another thread.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/sigpipe.hpp>  // SigpipeBlock

namespace zerocopy::inline ZEROCOPY_ABI {

/// Blocks SIGPIPE in the calling thread until the end of the scope. Transfers under it make no signal call of their
/// own: it pays where many small transfers follow each other. A SIGPIPE that a write under it raised is taken back at the
/// end; one that was pending before stays pending. The mask is put back as it was.
/// Errors: none. Blocking: no. Thread safety: belongs to the thread that made it; destroy it there. May be nested.
/// Rests on: pthread_sigmask(3), sigtimedwait(2).
class SigpipeGuard {
 public:
  SigpipeGuard() noexcept {
    block_.begin();
    block_.suspect();
    ++detail::sigpipe_guards;
  }
  SigpipeGuard(const SigpipeGuard&) = delete;
  SigpipeGuard& operator=(const SigpipeGuard&) = delete;
  ~SigpipeGuard() { --detail::sigpipe_guards; }

 private:
  detail::SigpipeBlock block_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
