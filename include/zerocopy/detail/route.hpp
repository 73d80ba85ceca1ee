// zerocopy/detail/route.hpp: which network device the bytes of a connected socket leave through, and what it can do.
// It asks the kernel (rtnetlink, then ethtool) through sockets of its own and changes nothing.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/syscall.hpp>  // sys::retry
#include <zerocopy/fd.hpp>              // OwnedFd

#include <linux/ethtool.h>    // ETHTOOL_GSG, ETHTOOL_GTXCSUM
#include <linux/rtnetlink.h>  // RTM_GETROUTE
#include <linux/sockios.h>    // SIOCETHTOOL
#include <net/if.h>           // if_indextoname
#include <netinet/in.h>       // sockaddr_in
#include <sys/ioctl.h>        // ioctl

#include <cstddef>   // std::byte
#include <cstring>   // std::memcpy
#include <optional>  // what the kernel may refuse to say
#include <string>    // the device's name

namespace zerocopy::inline ZEROCOPY_ABI {

/// The way of a connected socket's bytes out of this machine, as the routing table says now.
struct Route {
  std::string device;                    ///< "eth0"; "lo" for a peer on this machine
  std::optional<bool> scatter_gather;    ///< it sends pages where they lie; unknown where the kernel does not say
  std::optional<bool> checksum_offload;  ///< it computes checksums itself, without which there is no scatter-gather

  /// Nothing leaves the machine: the receiver gets the sender's own pages.
  [[nodiscard]] bool is_loopback() const noexcept { return device == "lo"; }
};

namespace detail {

// An address as the routing table wants it: its family and 4 or 16 bytes.
struct PeerAddress {
  int family = AF_UNSPEC;
  std::uint32_t scope = 0;  // the device of a link-local address
  std::uint32_t size = 0;
  std::byte bytes[16]{};

  // Of unknown family where the socket has no peer on a network.
  static PeerAddress of(int fd) noexcept {
    PeerAddress peer;
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return peer;
    if (address.ss_family == AF_INET) {
      sockaddr_in in;
      std::memcpy(&in, &address, sizeof(in));
      peer.set(AF_INET, &in.sin_addr, 4);
    } else if (address.ss_family == AF_INET6) {
      sockaddr_in6 in;
      std::memcpy(&in, &address, sizeof(in));
      peer.scope = in.sin6_scope_id;
      if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
        peer.set(AF_INET, in.sin6_addr.s6_addr + 12, 4);
      } else {
        peer.set(AF_INET6, &in.sin6_addr, 16);
      }
    }
    return peer;
  }

 private:
  void set(int its_family, const void* data, std::uint32_t n) noexcept {
    family = its_family;
    size = n;
    std::memcpy(bytes, data, n);
  }
};

// RTM_GETROUTE for one address. rtnetlink(7).
class RouteQuery {
 public:
  explicit RouteQuery(const PeerAddress& peer) noexcept {
    request_.header.nlmsg_type = RTM_GETROUTE;
    request_.header.nlmsg_flags = NLM_F_REQUEST;
    request_.header.nlmsg_len = NLMSG_LENGTH(sizeof(rtmsg));
    request_.route.rtm_family = static_cast<unsigned char>(peer.family);
    request_.route.rtm_dst_len = static_cast<unsigned char>(peer.size * 8);
    add(RTA_DST, peer.bytes, peer.size);
    if (peer.scope != 0) add(RTA_OIF, &peer.scope, sizeof(peer.scope));
  }

  // The index of the device, lo's for an own address; 0 where the kernel does not say.
  unsigned device() noexcept {
    const OwnedFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd) return 0;
    if (sys::send(fd.get(), &request_, request_.header.nlmsg_len, 0) < 0) return 0;
    const sys::Count n = sys::recv(fd.get(), answer_, sizeof(answer_), MSG_DONTWAIT);  // the kernel has answered by now
    return n > 0 ? read_answer(static_cast<std::size_t>(n)) : 0;
  }

 private:
  void add(unsigned short type, const void* data, std::uint32_t n) noexcept {
    const std::uint32_t at = NLMSG_ALIGN(request_.header.nlmsg_len);
    rtattr attribute{};
    attribute.rta_type = type;
    attribute.rta_len = static_cast<unsigned short>(RTA_LENGTH(n));
    auto* const place = reinterpret_cast<std::byte*>(&request_) + at;
    std::memcpy(place, &attribute, sizeof(attribute));
    std::memcpy(place + RTA_LENGTH(0), data, n);
    request_.header.nlmsg_len = at + static_cast<std::uint32_t>(RTA_LENGTH(n));
  }
  unsigned read_answer(std::size_t size) const noexcept {
    nlmsghdr header;
    constexpr std::size_t start = NLMSG_LENGTH(sizeof(rtmsg));
    if (size < start) return 0;
    std::memcpy(&header, answer_, sizeof(header));
    if (header.nlmsg_type != RTM_NEWROUTE || header.nlmsg_len > size) return 0;
    rtattr attribute;
    for (std::size_t at = start; at + sizeof(attribute) <= header.nlmsg_len;) {
      std::memcpy(&attribute, answer_ + at, sizeof(attribute));
      if (attribute.rta_len < sizeof(attribute) || at + attribute.rta_len > header.nlmsg_len) return 0;
      unsigned index = 0;
      if (attribute.rta_type == RTA_OIF && attribute.rta_len >= RTA_LENGTH(sizeof(index))) {
        std::memcpy(&index, answer_ + at + RTA_LENGTH(0), sizeof(index));
        return index;
      }
      at += RTA_ALIGN(attribute.rta_len);
    }
    return 0;
  }

  struct Request {
    nlmsghdr header{};
    rtmsg route{};
    std::byte attributes[64]{};
  };
  Request request_;
  alignas(nlmsghdr) std::byte answer_[2048]{};
};

// ETHTOOL_G... of a device: on or off. Unknown where the kernel or a sandbox refuses.
inline std::optional<bool> ethtool_flag(int fd, const std::string& device, std::uint32_t command) noexcept {
  ethtool_value value{};
  value.cmd = command;
  ifreq request{};
  std::memcpy(request.ifr_name, device.data(), std::min<std::size_t>(device.size(), IFNAMSIZ - 1));
  request.ifr_data = reinterpret_cast<char*>(&value);
  if (::ioctl(fd, SIOCETHTOOL, &request) != 0) return std::nullopt;
  return value.data != 0;
}

// None for a socket without a peer on a network (AF_UNIX, not connected), or where the routing table can't be read.
inline std::optional<Route> find_route(int fd) noexcept {
  const PeerAddress peer = PeerAddress::of(fd);
  if (peer.family == AF_UNSPEC) return std::nullopt;
  const unsigned index = RouteQuery(peer).device();
  char name[IFNAMSIZ]{};
  if (index == 0 || ::if_indextoname(index, name) == nullptr) return std::nullopt;
  Route route;
  route.device = name;  // at most 15 bytes: no allocation
  const OwnedFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const OwnedFd other(any ? -1 : ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int asking = any ? any.get() : other.get();
  route.scatter_gather = ethtool_flag(asking, route.device, ETHTOOL_GSG);
  route.checksum_offload = ethtool_flag(asking, route.device, ETHTOOL_GTXCSUM);
  return route;
}

}  // namespace detail

}  // namespace zerocopy::inline ZEROCOPY_ABI
