// zerocopy/detail/tools.hpp: what the strategies of one transfer work with. It owns the resources, never a count.
// Everything is taken at first use and put back by the destructors.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/in_flight.hpp>       // buffer and pipe
#include <zerocopy/detail/sigpipe.hpp>         // SigpipeBlock
#include <zerocopy/detail/window.hpp>          // the mapped part of the source
#include <zerocopy/detail/zerocopy_sends.hpp>  // MSG_ZEROCOPY and its completions

#include <limits.h>  // PIPE_BUF

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Of Linux 6.18; older headers lack it, older kernels refuse it.
inline constexpr int rwf_nosignal = 0x100;

struct Tools {
  InFlight store;
  Window window;
  ZerocopySends zerocopy_sends;
  SigpipeBlock sigpipe;
  int write_flags = RWF_NOWAIT | rwf_nosignal;  // for pipes and devices: those that the kernel has not refused
  int read_flags = RWF_NOWAIT;
  std::uint64_t polled_piece = PIPE_BUF;  // what fits where poll says writable
  bool more = false;                      // the last bytes are not the last ones of the sink
  bool poll_before_splice = false;        // the source is a blocking socket
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
