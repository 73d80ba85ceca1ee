// zerocopy/detail/pool.hpp: the pipes and buffers that a thread keeps for its transfers.
// It owns the only per-thread state of the library; they are closed with their thread, a pipe that holds bytes
// never comes back, and a child after fork never uses its parent's pipes.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/syscall.hpp>  // sys::Count
#include <zerocopy/fd.hpp>              // OwnedFd

#include <pthread.h>  // pthread_atfork

#include <array>    // the pool's places
#include <atomic>   // the fork generation
#include <cstddef>  // std::byte
#include <memory>   // the buffers
#include <new>      // std::nothrow
#include <utility>  // std::move

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// A buffer of this size holds every datagram that default socket limits allow (208 KiB on AF_UNIX).
inline constexpr std::size_t buffer_size = 256 * 1024;
inline constexpr int wanted_pipe_capacity = 1024 * 1024;  // the unprivileged limit of pipe-max-size
inline constexpr std::size_t pooled_pipes = 4;
inline constexpr std::size_t pooled_buffers = 2;

// Aligned as direct I/O wants it.
struct FreeBuffer {
  static constexpr std::align_val_t alignment{4096};
  void operator()(std::byte* data) const noexcept { ::operator delete[](data, alignment); }
};
using Buffer = std::unique_ptr<std::byte[], FreeBuffer>;

// A pipe of the library's own: not blocking, closed on exec, as large as the kernel allows.
struct OwnPipe {
  OwnedFd read_end;
  OwnedFd write_end;
  std::size_t capacity = 0;

  explicit operator bool() const noexcept { return static_cast<bool>(read_end); }
};

// How often this process has been forked from one that used the library: descriptors of an older generation are
// the parent's.
inline std::atomic<unsigned> fork_count{0};
inline unsigned fork_generation() noexcept {
  [[maybe_unused]] static const int once =
      ::pthread_atfork(nullptr, nullptr, [] { fork_count.fetch_add(1, std::memory_order_relaxed); });
  return fork_count.load(std::memory_order_relaxed);
}

class Pool {
 public:
  Pool() noexcept { is_open = true; }
  ~Pool() { is_open = false; }

  // 0, or the negated errno of pipe2 (EMFILE, ENFILE).
  static sys::Count take(OwnPipe& pipe) noexcept {
    Pool* const mine = of_this_thread();
    if (mine != nullptr && mine->pipe_count_ > 0) {
      pipe = std::move(mine->pipes_[--mine->pipe_count_]);
      return 0;
    }
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -errno;
    pipe = OwnPipe{OwnedFd(ends[0]), OwnedFd(ends[1]), 0};
    // Over the user's quota the kernel refuses to grow and the small pipe serves.
    int size = ::fcntl(ends[1], F_SETPIPE_SZ, wanted_pipe_capacity);
    if (size < 0) size = ::fcntl(ends[1], F_GETPIPE_SZ);
    pipe.capacity = size > 0 ? static_cast<std::size_t>(size) : 4096;
    return 0;
  }
  // Only an empty pipe: the caller has counted its bytes.
  static void give_back(OwnPipe pipe) noexcept {
    Pool* const mine = of_this_thread();
    if (mine != nullptr && pipe && mine->pipe_count_ < pooled_pipes)
      mine->pipes_[mine->pipe_count_++] = std::move(pipe);
  }

  // Null when there is no memory.
  static Buffer take_buffer() noexcept {
    Pool* const mine = of_this_thread();
    if (mine != nullptr && mine->buffer_count_ > 0) return std::move(mine->buffers_[--mine->buffer_count_]);
    return Buffer(static_cast<std::byte*>(::operator new[](buffer_size, FreeBuffer::alignment, std::nothrow)));
  }
  static void give_back(Buffer buffer) noexcept {
    Pool* const mine = of_this_thread();
    if (mine != nullptr && buffer && mine->buffer_count_ < pooled_buffers)
      mine->buffers_[mine->buffer_count_++] = std::move(buffer);
  }

 private:
  // Null in a thread that ends, for the transfers of destructors that run after the pool's.
  static Pool* of_this_thread() noexcept {
    thread_local Pool mine;
    if (!is_open) return nullptr;
    mine.drop_parents_pipes();
    return &mine;
  }
  void drop_parents_pipes() noexcept {
    const unsigned now = fork_generation();
    if (generation_ == now) return;
    generation_ = now;
    while (pipe_count_ > 0) pipes_[--pipe_count_] = OwnPipe{};
  }

  static inline thread_local constinit bool is_open = false;

  std::array<OwnPipe, pooled_pipes> pipes_;
  std::array<Buffer, pooled_buffers> buffers_;
  std::size_t pipe_count_ = 0;
  std::size_t buffer_count_ = 0;
  unsigned generation_ = fork_generation();
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
