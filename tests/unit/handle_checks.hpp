// tests/unit/handle_checks.hpp: what the tests of the handles ask of descriptors, files and errors.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace checks {

inline bool closes_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
inline bool is_non_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }
inline bool is_open(int fd) { return fd >= 0 && ::fcntl(fd, F_GETFD) != -1; }

// The error that `call` throws, and its text; none if it returns.
struct Thrown {
  std::error_code code;
  std::string text;
  bool says(std::string_view part) const { return text.find(part) != std::string::npos; }
};
template <class Call>
Thrown thrown_by(Call call) {
  try {
    call();
  } catch (const std::system_error& e) {
    return {e.code(), e.what()};
  }
  return {};
}

// A code that must have been overwritten: a twin that forgets to clear it is found out.
inline std::error_code stale() { return std::make_error_code(std::errc::bad_message); }

// A directory that goes with all that is in it (files only).
class Directory {
 public:
  Directory() {
    char name[] = "/tmp/zerocopy-test-XXXXXX";
    if (::mkdtemp(name) == nullptr) std::abort();
    path_ = name;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    for (const std::string& name : made_) ::unlink(name.c_str());
    ::rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }
  // A path in it, removed at the end if it exists.
  std::string file(const std::string& name) {
    made_[used_++ % made_.size()] = path_ + "/" + name;
    return path_ + "/" + name;
  }

 private:
  std::string path_;
  std::array<std::string, 16> made_;
  std::size_t used_ = 0;
};

inline std::string read_whole(const std::string& path) {
  std::string text;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  return text;
}
inline void write_whole(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  ::close(fd);
}

// `size` bytes, each of which tells where it is.
inline std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 4096) % 26);
  return text;
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// write and read of one call, as text; the empty string for nothing there.
inline bool put(int fd, std::string_view text) {
  return ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}
inline std::string take(int fd, std::size_t most = 65536) {
  std::string text(most, '\0');
  const ssize_t n = ::read(fd, text.data(), most);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

}  // namespace checks
