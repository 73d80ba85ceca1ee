// zerocopy/detail/address.hpp: socket addresses: look-up of names, AF_UNIX paths, and addresses as text.
// It owns the list that getaddrinfo made; it never makes a socket.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // is_c_string
#include <zerocopy/error.hpp>          // system_error_code

#include <arpa/inet.h>   // inet_ntop
#include <netdb.h>       // getaddrinfo
#include <netinet/in.h>  // sockaddr_in
#include <sys/socket.h>  // sockaddr_storage
#include <sys/un.h>      // sockaddr_un

#include <cstddef>       // offsetof
#include <cstdint>       // std::uint16_t
#include <cstring>       // std::memcpy
#include <memory>        // std::unique_ptr
#include <string>        // names
#include <system_error>  // std::error_category

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

class ResolverCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "zerocopy.resolver"; }
  std::string message(int value) const override { return ::gai_strerror(value); }
  std::error_condition default_error_condition(int value) const noexcept override {
    switch (value) {
      case EAI_AGAIN: return std::errc::resource_unavailable_try_again;
      case EAI_FAMILY:
      case EAI_ADDRFAMILY: return std::errc::address_family_not_supported;
      case EAI_MEMORY: return std::errc::not_enough_memory;
      case EAI_NONAME:
      case EAI_NODATA: return std::errc::host_unreachable;
      default: return {value, *this};
    }
  }
};

}  // namespace detail

/// The category of errors of name look-up; the values are the EAI_ numbers of getaddrinfo(3). A name that does not
/// exist (EAI_NONAME) equals std::errc::host_unreachable. Thread safety: any thread.
inline const std::error_category& resolver_category() noexcept {
  static const detail::ResolverCategory category;
  return category;
}

namespace detail {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
};

struct FreeAddresses {
  void operator()(addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

// Every address of `host`, best first. An empty host is the loopback, or every interface for `to_bind`.
// Blocking: on the resolver, as long as it is configured to wait.
inline Addresses look_up(const std::string& host, std::uint16_t port, int family, int socket_type, bool to_bind,
                         std::error_code& ec) {
  if (!is_c_string(host)) return ec = system_error_code(EINVAL), nullptr;
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = socket_type;
  const std::string service = std::to_string(port);
  addrinfo* list = nullptr;
  int result = 0;
  int system_error = 0;
  // Numbers first: AI_ADDRCONFIG would refuse "::1" on a machine whose network is IPv4. Names with it, so that no
  // address is tried that this machine can't reach; without it where only the loopback is configured.
  for (const int flags : {AI_NUMERICHOST, AI_ADDRCONFIG, 0}) {
    hints.ai_flags = flags | AI_NUMERICSERV | (to_bind ? AI_PASSIVE : 0);
    result = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &list);
    system_error = errno;
    if (result != EAI_NONAME && result != EAI_NODATA && result != EAI_ADDRFAMILY) break;
  }
  if (result == EAI_SYSTEM)
    ec = system_error_code(system_error);
  else if (result != 0)
    ec = std::error_code(result, resolver_category());
  else
    ec.clear();
  return Addresses(result == 0 ? list : nullptr);
}

// The address of `path`; a leading '@' or NUL means a name in the abstract namespace (unix(7)), which is not a file.
inline Address unix_address(const std::string& path, std::error_code& ec) noexcept {
  const bool abstract = !path.empty() && (path.front() == '@' || path.front() == '\0');
  sockaddr_un address{};
  Address result;
  if (path.empty() || (!abstract && !is_c_string(path))) return ec = system_error_code(EINVAL), result;
  if (path.size() > sizeof(address.sun_path) - (abstract ? 0 : 1)) return ec = system_error_code(ENAMETOOLONG), result;
  ec.clear();
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (abstract) address.sun_path[0] = '\0';
  result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  std::memcpy(&result.storage, &address, sizeof(address));
  return result;
}

inline std::uint16_t port_of(const Address& address) noexcept {
  if (address.storage.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(address.get())->sin_port);
  if (address.storage.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(address.get())->sin6_port);
  return 0;
}

// "127.0.0.1:80", "[::1]:80", "/a/path", "@abstract"; empty for a socket without a name.
inline std::string to_string(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  const std::string port = ":" + std::to_string(port_of(address));
  switch (address.storage.ss_family) {
    case AF_INET:
      ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address.get())->sin_addr, text, sizeof(text));
      return text + port;
    case AF_INET6:
      ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address.get())->sin6_addr, text, sizeof(text));
      return "[" + std::string(text) + "]" + port;
    case AF_UNIX: {
      const std::size_t before = offsetof(sockaddr_un, sun_path);
      if (address.size <= before) return {};
      std::string path(reinterpret_cast<const sockaddr_un*>(address.get())->sun_path, address.size - before);
      if (path.front() == '\0')
        path.front() = '@';
      else
        path.erase(std::min(path.find('\0'), path.size()));
      return path;
    }
    default: return {};
  }
}

}  // namespace detail
}  // namespace zerocopy::inline ZEROCOPY_ABI
