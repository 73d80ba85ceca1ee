// tests/support/fuse.hpp: a FUSE server that lies and fails as it is told. It speaks the kernel's protocol on /dev/fuse by
// itself, in a child process that ends with the object; the file system is never attached to a folder.
#pragma once

#include "support/detached_mount.hpp"

#include <linux/fuse.h>
#include <signal.h>
#include <sys/prctl.h>

#include <optional>

namespace ends {

// A file of the server. Its name is its place in the list: "0", "1", ...
struct FuseFile {
  Bytes content{};
  std::uint64_t reported = 0;                // the st_size that it tells
  bool grows = false;                        // writes raise `reported`: an honest sink
  bool direct = false;                       // FOPEN_DIRECT_IO: read(2) asks the server and believes no size
  std::uint64_t read_fails_at = UINT64_MAX;  // this byte can't be read
  std::uint64_t write_fails_at = UINT64_MAX;
  int error = EIO;
};

class Fuse {
 public:
  // Requests carry at most a page, so that a failure at a page's start is exact.
  explicit Fuse(std::vector<FuseFile> files) {
    zc::OwnedFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!device) {
      why_ = std::string("skipped: can't open /dev/fuse: ") + std::strerror(errno);
      return;
    }
    mount_.emplace(DetachedMount::of("fuse", {{"source", "zerocopy-test"},
                                              {"fd", std::to_string(device.get())},
                                              {"rootmode", "40000"},
                                              {"user_id", "0"},
                                              {"group_id", "0"}}));
    why_ = mount_->why();
    if (!mount_->ok()) return;
    server_ = checked(::fork(), "fork");
    if (server_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::signal(SIGALRM, SIG_DFL);
      ::dup2(device.get(), 3);
      ::close_range(4, ~0U, 0);
      Server{std::move(files)}.serve(3);
      ::_exit(0);
    }
  }
  Fuse(const Fuse&) = delete;
  Fuse& operator=(const Fuse&) = delete;
  ~Fuse() {
    if (server_ <= 0) return;
    ::kill(server_, SIGKILL);
    ::waitpid(server_, nullptr, 0);
  }
  [[nodiscard]] bool ok() const { return server_ > 0; }
  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] zc::OwnedFd open(std::size_t file, int flags = O_RDWR) const {
    return mount_->open(std::to_string(file), flags);
  }

 private:
  struct Server {
    std::vector<FuseFile> files;

    static constexpr std::uint64_t first_node = 2;

    FuseFile* at(std::uint64_t node) {
      return node >= first_node && node - first_node < files.size() ? &files[node - first_node] : nullptr;
    }
    fuse_attr attributes(std::uint64_t node) {
      fuse_attr attr{};
      attr.ino = node;
      attr.nlink = 1;
      attr.blksize = 4096;
      attr.mode = S_IFDIR | 0755;
      if (const FuseFile* file = at(node)) {
        attr.mode = S_IFREG | 0666;
        attr.size = file->reported;
        attr.blocks = (attr.size + 511) / 512;
      }
      return attr;
    }
    static void answer(int fd, std::uint64_t unique, int error, const void* data = nullptr, std::size_t size = 0) {
      fuse_out_header header{};
      header.len = static_cast<std::uint32_t>(sizeof header + (error == 0 ? size : 0));
      header.error = -error;
      header.unique = unique;
      Bytes message(header.len);
      std::memcpy(message.data(), &header, sizeof header);
      if (error == 0 && size > 0) std::memcpy(message.data() + sizeof header, data, size);
      std::ignore = ::write(fd, message.data(), message.size());
    }
    template <class T>
    static void answer(int fd, std::uint64_t unique, const T& body) {
      answer(fd, unique, 0, &body, sizeof body);
    }

    void serve(int fd) {
      Bytes request(std::size_t{1} << 18);
      for (;;) {
        const ssize_t n = ::read(fd, request.data(), request.size());
        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
        if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
        fuse_in_header header;
        std::memcpy(&header, request.data(), sizeof header);
        handle(fd, header, request.data() + sizeof header);
      }
    }
    void handle(int fd, const fuse_in_header& in, const std::byte* body) {
      const std::uint64_t id = in.unique;
      switch (in.opcode) {
        case FUSE_INIT: return init(fd, id, body);
        case FUSE_LOOKUP: return lookup(fd, id, reinterpret_cast<const char*>(body));
        case FUSE_GETATTR: return send_attributes(fd, id, in.nodeid);
        case FUSE_SETATTR: {
          fuse_setattr_in change;
          std::memcpy(&change, body, sizeof change);
          FuseFile* const file = at(in.nodeid);
          if (file != nullptr && (change.valid & FATTR_SIZE) != 0 && file->grows) {
            file->content.resize(change.size);
            file->reported = change.size;
          }
          return send_attributes(fd, id, in.nodeid);
        }
        case FUSE_OPEN: {
          fuse_open_out out{};
          if (at(in.nodeid) != nullptr && at(in.nodeid)->direct) out.open_flags = FOPEN_DIRECT_IO;
          return answer(fd, id, out);
        }
        case FUSE_READ: return read(fd, id, in.nodeid, body);
        case FUSE_WRITE: return write(fd, id, in.nodeid, body);
        case FUSE_FLUSH:
        case FUSE_RELEASE:
        case FUSE_FSYNC:
        case FUSE_OPENDIR: {
          const fuse_open_out out{};
          return answer(fd, id, 0, &out, in.opcode == FUSE_OPENDIR ? sizeof out : 0);
        }
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT: return;  // no answer
        case FUSE_DESTROY: ::_exit(0);
        default: return answer(fd, id, ENOSYS);
      }
    }
    static void init(int fd, std::uint64_t id, const std::byte* body) {
      fuse_init_in wanted;
      std::memcpy(&wanted, body, sizeof wanted);
      fuse_init_out out{};
      out.major = FUSE_KERNEL_VERSION;
      out.minor = FUSE_KERNEL_MINOR_VERSION;
      out.max_readahead = wanted.max_readahead;
      out.flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES;
      out.max_background = 16;
      out.congestion_threshold = 12;
      out.max_write = 4096;
      out.max_pages = 1;
      answer(fd, id, out);
    }
    void lookup(int fd, std::uint64_t id, const char* name) {
      fuse_entry_out out{};
      const std::uint64_t node = first_node + std::strtoull(name, nullptr, 10);
      if (name[0] < '0' || name[0] > '9' || at(node) == nullptr) return answer(fd, id, ENOENT);
      out.nodeid = node;
      out.attr = attributes(node);
      answer(fd, id, out);
    }
    void send_attributes(int fd, std::uint64_t id, std::uint64_t node) {
      fuse_attr_out out{};
      out.attr = attributes(node);
      answer(fd, id, out);
    }
    // A page that can't be had whole fails whole; direct requests lie anywhere, and may be answered short.
    static std::uint64_t before_failure(const FuseFile& file, std::uint64_t at, std::uint64_t n, std::uint64_t limit) {
      if (at + n <= limit) return n;
      return file.direct && at < limit ? limit - at : 0;
    }
    void read(int fd, std::uint64_t id, std::uint64_t node, const std::byte* body) {
      fuse_read_in in;
      std::memcpy(&in, body, sizeof in);
      const FuseFile* const file = at(node);
      if (file == nullptr) return answer(fd, id, EBADF);
      const std::uint64_t asked = before_failure(*file, in.offset, in.size, file->read_fails_at);
      if (asked == 0) return answer(fd, id, file->error);
      const std::uint64_t from = std::min<std::uint64_t>(in.offset, file->content.size());
      const std::uint64_t n = std::min<std::uint64_t>(asked, file->content.size() - from);
      answer(fd, id, 0, file->content.data() + from, n);
    }
    void write(int fd, std::uint64_t id, std::uint64_t node, const std::byte* body) {
      fuse_write_in in;
      std::memcpy(&in, body, sizeof in);
      FuseFile* const file = at(node);
      if (file == nullptr) return answer(fd, id, EBADF);
      const std::uint64_t n = before_failure(*file, in.offset, in.size, file->write_fails_at);
      if (n == 0) return answer(fd, id, file->error);
      if (file->content.size() < in.offset + n) file->content.resize(in.offset + n);
      std::memcpy(file->content.data() + in.offset, body + sizeof in, n);
      if (file->grows) file->reported = file->content.size();
      fuse_write_out out{};
      out.size = static_cast<std::uint32_t>(n);
      answer(fd, id, out);
    }
  };

  std::optional<DetachedMount> mount_;
  std::string why_;
  pid_t server_ = -1;
};

}  // namespace ends
