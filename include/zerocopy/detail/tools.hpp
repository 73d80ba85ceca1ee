// zerocopy/detail/tools.hpp: what the strategies of one transfer work with. It owns the resources, never a count.
// Everything is taken at first use and put back by the destructors.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/in_flight.hpp>       // buffer and pipe
#include <zerocopy/detail/meter.hpp>           // when the caller is told of progress
#include <zerocopy/detail/second_opening.hpp>  // O_DIRECT descriptors
#include <zerocopy/detail/send_timeout.hpp>    // calls into blocking sockets, cut short
#include <zerocopy/detail/sigpipe.hpp>         // SigpipeBlock
#include <zerocopy/detail/stream_calls.hpp>    // pipes and devices, by copying
#include <zerocopy/detail/window.hpp>          // the mapped part of the source
#include <zerocopy/detail/zerocopy_sends.hpp>  // MSG_ZEROCOPY and its completions

#include <memory>  // std::construct_at

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// What only some strategies need.
struct Resources {
  StreamCalls stream;
  InFlight store;
  Window window;
  ZerocopySends zerocopy_sends;
  SendTimeout send_timeout;
  SecondOpening source_again;
  SecondOpening sink_again;
  Meter meter;
};

class Tools {
 public:
  explicit Tools(bool wants_more) noexcept : more(wants_more) {}
  Tools(const Tools&) = delete;
  Tools& operator=(const Tools&) = delete;
  [[gnu::always_inline]] ~Tools() {
    if (has_resources_) drop_resources();
  }

  SigpipeBlock sigpipe;
  bool more;                        // the last bytes are not the last ones of the sink
  bool poll_before_splice = false;  // the source is a blocking socket
  bool cut_sends = false;           // the sink is a blocking socket, and the transfer has a time limit

  // Whether a strategy needed anything of the following, which is made at its first use.
  [[nodiscard]] bool has_resources() const noexcept { return has_resources_; }
  StreamCalls& stream() noexcept { return resources().stream; }
  InFlight& store() noexcept { return resources().store; }
  Window& window() noexcept { return resources().window; }
  ZerocopySends& zerocopy_sends() noexcept { return resources().zerocopy_sends; }
  SendTimeout& send_timeout() noexcept { return resources().send_timeout; }
  SecondOpening& source_again() noexcept { return resources().source_again; }
  SecondOpening& sink_again() noexcept { return resources().sink_again; }
  Meter& meter() noexcept { return resources().meter; }
  // MSG_ZEROCOPY sends whose pages the kernel may still read.
  [[nodiscard]] std::uint64_t outstanding_sends() const noexcept {
    return has_resources_ ? resources_.zerocopy_sends.outstanding() : 0;
  }

 private:
  Resources& resources() noexcept {
    if (!has_resources_) make_resources();
    return resources_;
  }
  // Not inlined, and no std::optional: a small transfer has none of it.
  [[gnu::noinline]] void make_resources() noexcept {
    std::construct_at(&resources_);
    has_resources_ = true;
  }
  [[gnu::noinline]] void drop_resources() noexcept { std::destroy_at(&resources_); }

  bool has_resources_ = false;
  union {
    Resources resources_;
  };
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
