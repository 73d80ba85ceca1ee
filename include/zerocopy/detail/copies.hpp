// zerocopy/detail/copies.hpp: how often the CPU and the devices touch each byte on the sender's way, strategy by strategy.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/job.hpp>    // Job
#include <zerocopy/detail/route.hpp>  // Route

#include <sys/statfs.h>  // fstatfs

#include <optional>  // a route that may not be known

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// How often the CPU and the devices touch each byte.
class Copies {
 public:
  Copies(const Job& job, const std::optional<Route>& route) noexcept
      : from_(job.from), to_(job.to), buffered_(job.machine.buffered() > 0), route_(route ? &*route : nullptr) {}

  [[nodiscard]] unsigned by_cpu(Strategy strategy) const noexcept {
    switch (strategy) {
      case Strategy::reflink: return 0;
      case Strategy::copy_file_range:
      case Strategy::mmap_write: return 1;
      case Strategy::sendfile:
      case Strategy::splice:
      case Strategy::vmsplice: return (from_.kind == Kind::device ? 1U : 0U) + into_sink();
      case Strategy::send_zerocopy: return route_ != nullptr && route_->is_loopback() ? 1 : into_sink();
      default: return is_memory(from_.kind) || is_memory(to_.kind) || buffered_ ? 1 : 2;
    }
  }
  [[nodiscard]] unsigned by_devices(Strategy strategy) const noexcept {
    if (strategy == Strategy::reflink) return 0;
    return by_device(from_) +
           (to_.kind == Kind::socket || to_.kind == Kind::messages ? over_wire(route_) : by_device(to_));
  }

 private:
  // Pages that are handed on: whether the sink takes them as they are.
  [[nodiscard]] unsigned into_sink() const noexcept {
    if (to_.kind == Kind::pipe) return 0;
    if (to_.kind != Kind::socket) return 1;  // a file copies into its own pages
    if (route_ != nullptr) return route_->scatter_gather.value_or(false) ? 0 : 1;
    int domain = 0;
    return sys::get_option(to_.fd, SOL_SOCKET, SO_DOMAIN, domain) == 0 && domain == AF_UNIX ? 0 : 1;
  }
  static unsigned by_device(const Cursor& end) noexcept {
    if (is_socket(end.kind)) {
      const std::optional<Route> route = find_route(end.fd);
      return over_wire(route ? &*route : nullptr);
    }
    return (is_file(end.kind) || end.kind == Kind::mapping) && is_on_disk(end.fd) ? 1 : 0;
  }
  static unsigned over_wire(const Route* route) noexcept { return route != nullptr && !route->is_loopback() ? 1 : 0; }
  static bool is_on_disk(int fd) noexcept {
    constexpr unsigned long in_memory[] = {0x01021994 /* tmpfs, memfd */, 0x858458f6 /* ramfs */,
                                           0x958458f6 /* hugetlbfs */, 0x9fa0 /* proc */, 0x62656572 /* sysfs */};
    struct statfs where;
    if (fd < 0 || ::fstatfs(fd, &where) != 0) return false;
    for (const unsigned long type : in_memory)
      if (static_cast<unsigned long>(where.f_type) == type) return false;
    return true;
  }

  const Cursor& from_;
  const Cursor& to_;
  bool buffered_;
  const Route* route_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
