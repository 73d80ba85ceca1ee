// zerocopy/detail/refusals.hpp: what the kernel will refuse a strategy here, as far as that can be known without moving a byte.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/capabilities.hpp>        // Capabilities
#include <zerocopy/detail/errno_table.hpp>  // verdict
#include <zerocopy/detail/job.hpp>          // Job

#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Refusals that can be known without moving a byte: from the capabilities, the descriptors' flags, and a
// copy_file_range of length 0, for which the kernel checks the pair and returns before it does anything.
class Refusals {
 public:
  explicit Refusals(const Job& job) noexcept
      : from_(job.from), to_(job.to), drained_(job.from.kind == Kind::in_flight && job.machine.piped() == 0) {}

  [[nodiscard]] std::error_code of(Strategy strategy) const noexcept {
    const Capabilities& here = Capabilities::of_process();
    switch (strategy) {
      case Strategy::copy_file_range: return ask_copy_file_range();
      case Strategy::sendfile:
        return first(is_socket(to_.kind) ? here.sendfile_to_socket : here.sendfile_to_file, appends());
      case Strategy::splice:
        if (drained_) return Errc::not_for_this_pair;  // all that is in flight is in the buffer
        return first(here.splice, ask_pipe());
      case Strategy::vmsplice: return first(here.vmsplice, ask_pipe());
      case Strategy::send_zerocopy: return first(here.msg_zerocopy, ask_socket());
      default: return {};
    }
  }

 private:
  static std::error_code first(const Capability& capability, std::error_code otherwise) noexcept {
    return capability ? otherwise : capability.error;
  }
  [[nodiscard]] std::error_code ask_copy_file_range() const noexcept {
    off_t in;
    off_t out;
    const sys::Count n = sys::copy_file_range(from_.fd, from_.call_offset(in), to_.fd, to_.call_offset(out), 0);
    const int error = static_cast<int>(-n);
    const bool refused = n < 0 && verdict(Strategy::copy_file_range, error, false) == Verdict::unsupported;
    return refused ? system_error_code(error) : std::error_code{};
  }
  // A pipe of our own, where neither end is one.
  [[nodiscard]] std::error_code ask_pipe() const noexcept {
    if (from_.kind == Kind::pipe || to_.kind == Kind::pipe || from_.kind == Kind::in_flight) return appends();
    OwnPipe pipe;
    if (const sys::Count error = Pool::take(pipe); error < 0) return system_error_code(static_cast<int>(-error));
    Pool::give_back(std::move(pipe));
    return appends();
  }
  // splice(2): EINVAL for a file in append mode.
  [[nodiscard]] std::error_code appends() const noexcept {
    const sys::Count flags = is_file(to_.kind) ? sys::status_flags(to_.fd) : 0;
    return flags >= 0 && (flags & O_APPEND) != 0 ? system_error_code(EINVAL) : std::error_code{};
  }
  [[nodiscard]] std::error_code ask_socket() const noexcept {
    int value = 0;
    if (sys::get_option(to_.fd, SOL_SOCKET, SO_DOMAIN, value) == 0 && value != AF_INET && value != AF_INET6)
      return system_error_code(EOPNOTSUPP);
    if (const sys::Count e = sys::get_option(to_.fd, SOL_SOCKET, SO_ZEROCOPY, value); e < 0)
      return system_error_code(static_cast<int>(-e));
    return value != 0 ? make_error_code(Errc::socket_option_in_use) : std::error_code{};
  }

  const Cursor& from_;
  const Cursor& to_;
  bool drained_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
