// tests/support/ends.hpp: what a transfer test needs beside the library: known bytes, pairs of descriptors, threads that
// feed and drain with a time limit, and the state of a process that a transfer must leave as it was.
// Raw system calls only, so that a defect of the library's handles can't hide a defect of its transfers.
#pragma once

#include <zerocopy/zerocopy.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <dirent.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace ends {

namespace zc = zerocopy;
using Bytes = std::vector<std::byte>;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// How long any thread of a test waits for its other end before it gives up and closes.
inline constexpr auto patience = 10s;

inline int checked(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

// ---- bytes ----

// Bytes that never repeat at a page, a pipe slot or a power of two: what was moved twice or left out shows.
inline const Bytes& pattern() {
  static const Bytes bytes = [] {
    Bytes made(std::size_t{9} << 20);
    std::uint64_t state = 0x9e3779b97f4a7c15U;
    for (std::byte& b : made) {
      state ^= state << 13U, state ^= state >> 7U, state ^= state << 17U;
      b = static_cast<std::byte>(state >> 32U);
    }
    return made;
  }();
  return bytes;
}
inline std::span<const std::byte> pattern(std::size_t offset, std::size_t n) {
  return std::span(pattern()).subspan(offset, n);
}

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// FNV-1a, for what is too large to keep.
class Digest {
 public:
  void add(std::span<const std::byte> bytes) {
    for (std::byte b : bytes) value_ = (value_ ^ static_cast<std::uint64_t>(b)) * 0x100000001b3U;
    size_ += bytes.size();
  }
  friend bool operator==(const Digest&, const Digest&) = default;

 private:
  std::uint64_t value_ = 0xcbf29ce484222325U;
  std::uint64_t size_ = 0;
};

// ---- files ----

inline void pwrite_all(int fd, std::span<const std::byte> bytes, std::uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n <= 0) throw std::system_error(errno, std::generic_category(), "pwrite");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
  }
}
inline Bytes pread_all(int fd, std::uint64_t at = 0) {
  Bytes all;
  for (std::array<std::byte, 65536> block;;) {
    const ssize_t n = ::pread(fd, block.data(), block.size(), static_cast<off_t>(at));
    if (n < 0) throw std::system_error(errno, std::generic_category(), "pread");
    if (n == 0) return all;
    all.insert(all.end(), block.begin(), block.begin() + n);
    at += static_cast<std::uint64_t>(n);
  }
}
inline std::uint64_t size_of(int fd) {
  struct stat status {};
  checked(::fstat(fd, &status), "fstat");
  return static_cast<std::uint64_t>(status.st_size);
}
inline std::uint64_t position_of(int fd) { return static_cast<std::uint64_t>(::lseek(fd, 0, SEEK_CUR)); }

// A folder of its own, gone with everything in it.
class TempDir {
 public:
  explicit TempDir(const std::string& parent = "/tmp") : path_(parent + "/zerocopy-test-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp");
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    if (DIR* dir = ::opendir(path_.c_str())) {
      while (const dirent* entry = ::readdir(dir)) ::unlink((path_ + "/" + entry->d_name).c_str());
      ::closedir(dir);
    }
    ::rmdir(path_.c_str());
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A file without a name that holds `bytes`, at position 0.
inline zc::OwnedFd temporary_file(std::span<const std::byte> bytes = {}, const std::string& dir = "/tmp") {
  zc::OwnedFd fd(checked(::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open O_TMPFILE"));
  pwrite_all(fd.get(), bytes, 0);
  return fd;
}
// The same file again, with other flags and a position of its own.
inline zc::OwnedFd reopened(int fd, int flags) {
  return zc::OwnedFd(checked(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), flags | O_CLOEXEC), "reopen"));
}

// ---- pairs ----

struct FdPair {
  zc::OwnedFd one;    // the library's; of a pipe: the end that reads
  zc::OwnedFd other;  // the test's; of a pipe: the end that writes
};

inline void set_nonblocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  ::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

inline FdPair pipe_pair() {
  int fds[2];
  checked(::pipe2(fds, O_CLOEXEC), "pipe2");
  return {zc::OwnedFd(fds[0]), zc::OwnedFd(fds[1])};
}
inline FdPair unix_pair(int type = SOCK_STREAM) {
  int fds[2];
  checked(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), "socketpair");
  return {zc::OwnedFd(fds[0]), zc::OwnedFd(fds[1])};
}
// Both ends blocking. `receive_buffer` is that of the test's end, 0 for the default.
inline FdPair tcp_pair(int receive_buffer = 0) {
  zc::OwnedFd listener(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  if (receive_buffer != 0) ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  checked(::listen(listener.get(), 1), "listen");
  checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  FdPair pair;
  pair.one.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  checked(::connect(pair.one.get(), reinterpret_cast<sockaddr*>(&address), size), "connect");
  pair.other.reset(checked(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  return pair;
}
// Two UDP sockets on the loopback, connected to each other.
inline FdPair udp_pair() {
  FdPair pair;
  sockaddr_in addresses[2]{};
  zc::OwnedFd* fds[2] = {&pair.one, &pair.other};
  for (int i = 0; i < 2; ++i) {
    fds[i]->reset(checked(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    addresses[i].sin_family = AF_INET;
    addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof addresses[i];
    checked(::bind(fds[i]->get(), reinterpret_cast<sockaddr*>(&addresses[i]), size), "bind");
    checked(::getsockname(fds[i]->get(), reinterpret_cast<sockaddr*>(&addresses[i]), &size), "getsockname");
  }
  for (int i = 0; i < 2; ++i) {
    checked(::connect(fds[i]->get(), reinterpret_cast<sockaddr*>(&addresses[1 - i]), sizeof addresses[0]), "connect");
  }
  return pair;
}

// Without TIME_WAIT: thousands of connections would use up the ports.
inline void reset_at_close(int fd) {
  const linger now{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

inline int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

// Waits for `events`; false when the time is up.
inline bool wait_for(int fd, short events, Clock::time_point until) {
  pollfd entry{fd, events, 0};
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  return left > 0 && ::poll(&entry, 1, static_cast<int>(left)) > 0;
}

// Threads of a test never get signals: a SIGPIPE of theirs is no failure of the library.
inline void without_sigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// Reads `fd` to its end, or until the patience ends.
inline Bytes read_to_end(int fd, std::size_t at_most = SIZE_MAX) {
  Bytes all;
  const auto until = Clock::now() + patience;
  std::vector<std::byte> block(std::size_t{256} << 10);
  while (all.size() < at_most && wait_for(fd, POLLIN, until)) {
    const ssize_t n = ::read(fd, block.data(), std::min(block.size(), at_most - all.size()));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) break;
    all.insert(all.end(), block.begin(), block.begin() + n);
  }
  return all;
}

// Reads what there is now, waits for nothing.
inline Bytes read_now(int fd) {
  Bytes all;
  std::vector<std::byte> block(std::size_t{256} << 10);
  for (pollfd entry{fd, POLLIN, 0}; ::poll(&entry, 1, 0) > 0;) {
    const ssize_t n = ::read(fd, block.data(), block.size());
    if (n <= 0) break;
    all.insert(all.end(), block.begin(), block.begin() + n);
  }
  return all;
}

// Writes all, or until the patience ends or nobody reads any more; true if all was written.
inline bool write_all(int fd, std::span<const std::byte> bytes) {
  const auto until = Clock::now() + patience;
  while (!bytes.empty()) {
    if (!wait_for(fd, POLLOUT, until)) return false;
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

// Reads `fd` in a thread of its own until the end of what arrives; `bytes()` waits for it.
class Drainer {
 public:
  explicit Drainer(int fd, std::size_t at_most = SIZE_MAX)
      : thread_([this, fd, at_most] { bytes_ = read_to_end(fd, at_most); }) {}
  Drainer(const Drainer&) = delete;
  Drainer& operator=(const Drainer&) = delete;
  ~Drainer() {
    if (thread_.joinable()) thread_.join();
  }
  const Bytes& bytes() {
    if (thread_.joinable()) thread_.join();
    return bytes_;
  }

 private:
  Bytes bytes_;
  std::thread thread_;
};

// Writes `bytes` into `fd` in a thread of its own and closes it. `bytes` must outlive the thread.
class Feeder {
 public:
  Feeder(zc::OwnedFd fd, std::span<const std::byte> bytes)
      : thread_([end = std::move(fd), bytes]() mutable {
          without_sigpipe();
          set_nonblocking(end.get(), true);
          std::ignore = write_all(end.get(), bytes);
        }) {}
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;
  ~Feeder() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::thread thread_;
};

// ---- what a transfer leaves as it was ----

// A descriptor's flags and the options that a transfer could have touched.
struct FdState {
  int flags = -1;
  std::array<long, 6> options{};

  static FdState of(int fd) {
    FdState state;
    state.flags = ::fcntl(fd, F_GETFL);
    if (option_of(fd, SOL_SOCKET, SO_TYPE) < 0) return state;
    timeval times[2]{};
    socklen_t size = sizeof times[0];
    ::getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &times[0], &size);
    ::getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &times[1], &size);
    state.options = {times[0].tv_sec * 1000000 + times[0].tv_usec, times[1].tv_sec * 1000000 + times[1].tv_usec,
                     option_of(fd, SOL_SOCKET, SO_ZEROCOPY),       option_of(fd, IPPROTO_TCP, TCP_CORK),
                     option_of(fd, IPPROTO_TCP, TCP_NODELAY),      option_of(fd, SOL_SOCKET, SO_RCVLOWAT)};
    return state;
  }
  friend bool operator==(const FdState&, const FdState&) = default;
};

// This thread's mask and what is pending.
struct SignalState {
  sigset_t mask{};
  sigset_t pending{};

  static SignalState now() {
    SignalState state;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &state.mask);
    ::sigpending(&state.pending);
    return state;
  }
  friend bool operator==(const SignalState& a, const SignalState& b) {
    for (int s = 1; s < 64; ++s) {
      if (sigismember(&a.mask, s) != sigismember(&b.mask, s)) return false;
      if (sigismember(&a.pending, s) != sigismember(&b.pending, s)) return false;
    }
    return true;
  }
};

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count - 3;  // ".", ".." and the folder itself
}

// Runs `f` in a thread that ends, so that the pipes which the library keeps for a thread are closed too.
template <class F>
void in_thread(F f) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      f();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace ends
