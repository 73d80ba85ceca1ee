// zerocopy/capabilities.hpp: what this kernel lets this process do, found by trying and never by a version number.
// It owns the one cache of the answers; what it tries it tries on files, pipes and sockets of its own, and closes them.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/syscall.hpp>  // the calls that are tried
#include <zerocopy/error.hpp>           // system_error_code
#include <zerocopy/fd.hpp>              // OwnedFd

#include <netinet/in.h>   // IPPROTO_TCP
#include <signal.h>       // SIGURG
#include <sys/mman.h>     // memfd_create
#include <sys/syscall.h>  // io_uring_setup has no wrapper

#include <cstddef>       // std::size_t
#include <string>        // paths in /proc
#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI {

/// Whether something works here, and if not, what the kernel said.
struct Capability {
  bool available = false;
  std::error_code error;  ///< set exactly when it is not available

  explicit operator bool() const noexcept { return available; }
};

/// What the kernel, its settings and the sandbox around this process allow. A file system or a descriptor can still refuse
/// what is available here; a transfer then takes the next way, whatever stands in this table.
struct Capabilities {
  Capability copy_file_range;     ///< copy_file_range(2), between two memfds
  Capability sendfile_to_file;    ///< sendfile(2), memfd to memfd
  Capability sendfile_to_socket;  ///< sendfile(2), memfd to a stream socket
  Capability splice;              ///< splice(2), memfd to pipe
  Capability vmsplice;            ///< vmsplice(2)
  Capability pipe_nowait;         ///< RWF_NOWAIT on pipes, preadv2(2): a call that does not block on a blocking pipe
  Capability pipe_nosignal;       ///< RWF_NOSIGNAL on pipes: a write that raises no SIGPIPE (Linux 6.18)
  Capability
      dontcache;  ///< RWF_DONTCACHE on the file system of this program or of /tmp, whichever takes it (Linux 6.14)
  Capability msg_zerocopy;        ///< SO_ZEROCOPY on a TCP socket (Linux 4.14)
  Capability io_uring;            ///< io_uring_setup(2): ENOSYS, or EPERM where a sysctl or a sandbox forbids it
  Capability read_lease;          ///< F_SETLEASE with F_RDLCK, fcntl(2)
  Capability delegation;          ///< F_SETDELEG with F_RDLCK on a file (Linux 6.19)
  std::size_t pipe_capacity = 0;  ///< bytes that a pipe really gets when 1 MiB is asked for; 0: no pipe can be made

  /// The answers for this process, found at the first call and kept: a filter or a limit that is set later does not change
  /// them, and a child after fork has its parent's.
  /// Errors: none; what fails is in the fields. Blocking: the first call makes about 60 system calls, 0.2 ms; later ones none.
  /// Thread safety: any thread. Rests on: the calls named beside the fields.
  [[nodiscard]] static const Capabilities& of_process() noexcept;

  /// The same, tried now. Errors, blocking, thread safety: as at the first call above.
  [[nodiscard]] static Capabilities probe() noexcept;
};

namespace detail {

// Tries each capability on descriptors of its own.
class Prober {
 public:
  Capabilities all() noexcept {
    Capabilities found;
    make_pipe(found);
    found.copy_file_range = try_count([&] {
      off_t in = 0;
      off_t out = 0;
      return sys::copy_file_range(from_.get(), &in, to_.get(), &out, 1);
    });
    found.sendfile_to_file = try_count([&] {
      off_t in = 0;
      return sys::sendfile(to_.get(), from_.get(), &in, 1);
    });
    found.sendfile_to_socket = sendfile_to_socket();
    const char byte = 'x';
    // Before the first splice, which takes RWF_NOWAIT away from its pipe for good (pipe_clear_nowait in the kernel).
    found.pipe_nowait = try_pipe([&] { return sys::write_flagged(write_end_.get(), &byte, 1, RWF_NOWAIT); });
    found.pipe_nosignal = try_pipe([&] { return sys::write_flagged(write_end_.get(), &byte, 1, rwf_nosignal); });
    found.splice = try_pipe([&] {
      off_t in = 0;
      return sys::splice(from_.get(), &in, write_end_.get(), nullptr, 1, SPLICE_F_NONBLOCK);
    });
    found.vmsplice = try_pipe([&] { return sys::vmsplice(write_end_.get(), &byte, 1, SPLICE_F_NONBLOCK); });
    found.dontcache = dontcache();
    found.msg_zerocopy = msg_zerocopy();
    found.io_uring = io_uring();
    found.read_lease = read_lease();
    found.delegation = delegation();
    return found;
  }

 private:
  static constexpr int rwf_nosignal = 0x100;    // Linux 6.18; older headers lack these names
  static constexpr int rwf_dontcache = 0x80;    // Linux 6.14
  static constexpr int f_setdeleg = 1024 + 16;  // Linux 6.19
  struct Delegation {
    std::uint32_t flags;
    std::uint16_t type;
    std::uint16_t pad;
  };

  static Capability yes() noexcept { return {true, {}}; }
  static Capability no(int error) noexcept { return {false, system_error_code(error)}; }
  // `result`: >= 0 or a negated errno.
  static Capability judge(sys::Count result) noexcept { return result >= 0 ? yes() : no(static_cast<int>(-result)); }
  static sys::Count result_of(int returned) noexcept { return returned >= 0 ? returned : -errno; }

  // A call that must move one byte: 0 is a refusal that does not say so.
  template <class Call>
  static Capability try_count(Call call) noexcept {
    const sys::Count n = call();
    return n == 0 ? no(EIO) : judge(n);
  }
  // The same for a call that puts the byte into our pipe, which is emptied again.
  template <class Call>
  Capability try_pipe(Call call) noexcept {
    if (!read_end_) return no(pipe_error_);
    const Capability found = try_count(call);
    char byte;
    if (found) (void)sys::read(read_end_.get(), &byte, 1);
    return found;
  }

  static OwnedFd one_byte_file() noexcept {
    OwnedFd fd(::memfd_create("zerocopy-probe", MFD_CLOEXEC));
    if (fd) (void)sys::write(fd.get(), "x", 1);
    return fd;
  }
  void make_pipe(Capabilities& found) noexcept {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
      pipe_error_ = errno;
      return;
    }
    read_end_.reset(ends[0]);
    write_end_.reset(ends[1]);
    (void)::fcntl(ends[1], F_SETPIPE_SZ, 1024 * 1024);
    const int size = ::fcntl(ends[1], F_GETPIPE_SZ);
    if (size > 0) found.pipe_capacity = static_cast<std::size_t>(size);
  }
  Capability sendfile_to_socket() const noexcept {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return no(errno);
    const OwnedFd one(ends[0]);
    const OwnedFd other(ends[1]);
    off_t in = 0;
    return try_count([&] { return sys::sendfile(one.get(), from_.get(), &in, 1); });
  }
  // An unknown flag and a file system without it give the same errno: two file systems are asked. Reads only.
  static Capability dontcache() noexcept {
    Capability found = no(EOPNOTSUPP);
    const auto ask = [&found](int raw) {
      const OwnedFd fd(raw);
      char byte;
      const iovec part{&byte, 1};
      found = fd ? judge(sys::retry([&] { return ::preadv2(fd.get(), &part, 1, 0, rwf_dontcache); })) : no(errno);
    };
    ask(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    if (!found) ask(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    return found;
  }
  static Capability msg_zerocopy() noexcept {
    OwnedFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) fd.reset(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return fd ? judge(sys::set_option(fd.get(), SOL_SOCKET, SO_ZEROCOPY, 1)) : no(errno);
  }
  static Capability io_uring() noexcept {
    alignas(8) unsigned char parameters[120]{};  // struct io_uring_params, all zero
    constexpr long setup = 425;                  // the same number on every architecture
    const OwnedFd ring(static_cast<int>(::syscall(setup, 1, parameters)));
    return ring ? yes() : no(errno);
  }
  // A file of our own that nobody has open for writing, which is what a lease needs.
  static OwnedFd file_without_writer() noexcept {
    const OwnedFd writer = one_byte_file();
    if (!writer) return {};
    char path[32] = "/proc/self/fd/";
    append_number(path, writer.get());
    return OwnedFd(::open(path, O_RDONLY | O_CLOEXEC));
  }
  static void append_number(char* text, int number) noexcept {
    while (*text != '\0') ++text;
    int unit = 1;
    while (number / unit >= 10) unit *= 10;
    for (; unit > 0; unit /= 10) *text++ = static_cast<char>('0' + number / unit % 10);
    *text = '\0';
  }
  static Capability read_lease() noexcept {
    const OwnedFd fd = file_without_writer();
    if (!fd) return no(errno);
    (void)::fcntl(fd.get(), F_SETSIG, SIGURG);  // a break that comes now must not be SIGIO, which kills
    const Capability found = judge(result_of(::fcntl(fd.get(), F_SETLEASE, F_RDLCK)));
    if (found) (void)::fcntl(fd.get(), F_SETLEASE, F_UNLCK);
    return found;
  }
  static Capability delegation() noexcept {
    const OwnedFd fd = file_without_writer();
    if (!fd) return no(errno);
    (void)::fcntl(fd.get(), F_SETSIG, SIGURG);
    Delegation wanted{0, F_RDLCK, 0};
    const Capability found = judge(result_of(::fcntl(fd.get(), f_setdeleg, &wanted)));
    wanted.type = F_UNLCK;
    if (found) (void)::fcntl(fd.get(), f_setdeleg, &wanted);
    return found;
  }

  const OwnedFd from_ = one_byte_file();
  const OwnedFd to_ = one_byte_file();
  OwnedFd read_end_;
  OwnedFd write_end_;
  int pipe_error_ = 0;
};

}  // namespace detail

inline Capabilities Capabilities::probe() noexcept { return detail::Prober().all(); }

inline const Capabilities& Capabilities::of_process() noexcept {
  static const Capabilities found = probe();
  return found;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
