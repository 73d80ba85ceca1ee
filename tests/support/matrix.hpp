// tests/support/matrix.hpp: every source to every sink by every strategy, as a table that is walked at run time.
// A source file of tests/matrix instantiates transfer() for one kind of source and all sinks; cases, expectations and
// checks are compiled once, in tests/matrix/harness_test.cpp.
#pragma once

#include "support/ends.hpp"

#include <memory>
#include <optional>

namespace matrix {

namespace zc = zerocopy;

enum class SourceKind {
  file,
  file_range,
  mapped,
  memory_file,
  pipe,
  tcp,
  unix_stream,
  memory,
  borrowed_file,
  borrowed_pipe,
  borrowed_tcp,
  borrowed_unix,
  stranded_buffer,
  stranded_pipe,
};
enum class SinkKind {
  file,
  file_range,
  file_append,
  mapped,
  memory_file,
  pipe,
  tcp,
  unix_stream,
  memory,
  borrowed_file,
  borrowed_append,
  borrowed_pipe,
  borrowed_tcp,
  borrowed_unix,
};
inline constexpr int sink_kinds = 14;

const char* name_of(SourceKind kind);
const char* name_of(SinkKind kind);

struct Case {
  SourceKind source{};
  SinkKind sink{};
  std::optional<zc::Strategy> strategy{};
  std::size_t size = 0;           // bytes that the source has
  std::size_t source_offset = 0;  // where in its file they begin
  std::size_t sink_offset = 0;    // where in the sink's file they go
  std::uint64_t length = zc::to_end;
  bool source_blocks = false;  // pipes and sockets: without O_NONBLOCK
  bool sink_blocks = false;
  bool sink_empty = false;    // files: not filled before, the offset is past the end
  bool small_buffer = false;  // sockets: a small SO_SNDBUF

  [[nodiscard]] std::string text() const;
};

// One source, set up for a case.
struct Source {
  explicit Source(const Case& c);

  SourceKind kind;
  std::span<const std::byte> content;  // what is to be moved
  std::uint64_t start = 0;             // position in the file
  int fd = -1;                         // what the library is given, -1 for memory
  std::optional<zc::File> file{};
  std::optional<zc::MemoryFile> memory_file{};
  std::optional<zc::FileRange> range{};
  std::optional<zc::MappedFile> mapped{};
  std::optional<zc::PipeReader> pipe{};
  std::optional<zc::Socket> socket{};
  std::optional<zc::Stranded> stranded{};
  zc::OwnedFd owned{};  // under a BorrowedFd or a FileRange
  std::unique_ptr<ends::Feeder> feeder{};

  [[nodiscard]] bool is_file() const;    // has a position that moves
  [[nodiscard]] bool is_stream() const;  // can't be rewound
};

// One sink, set up for a case.
struct Sink {
  explicit Sink(const Case& c);

  SinkKind kind;
  std::size_t room = 0;     // for memory
  std::uint64_t start = 0;  // position in the file
  int fd = -1;
  std::optional<zc::File> file{};
  std::optional<zc::MemoryFile> memory_file{};
  std::optional<zc::FileRange> range{};
  std::optional<zc::WritableMappedFile> mapped{};
  std::optional<zc::PipeWriter> pipe{};
  std::optional<zc::Socket> socket{};
  ends::Bytes buffer{};
  zc::OwnedFd owned{};
  zc::OwnedFd peer{};    // where a pipe or a socket is read
  ends::Bytes before{};  // a file's content
  std::unique_ptr<ends::Drainer> drainer{};

  [[nodiscard]] std::span<std::byte> span() { return std::span(buffer).first(room); }
};

// One instantiation of transfer() for each kind of sink.
template <class From>
zc::TransferResult to_every_sink(From& from, Sink& to, const zc::Options& options, std::error_code& ec) {
  switch (to.kind) {
    case SinkKind::file:
    case SinkKind::file_append: return zc::transfer(from, *to.file, options, ec);
    case SinkKind::file_range: return zc::transfer(from, *to.range, options, ec);
    case SinkKind::mapped: return zc::transfer(from, *to.mapped, options, ec);
    case SinkKind::memory_file: return zc::transfer(from, *to.memory_file, options, ec);
    case SinkKind::pipe: return zc::transfer(from, *to.pipe, options, ec);
    case SinkKind::tcp:
    case SinkKind::unix_stream: return zc::transfer(from, *to.socket, options, ec);
    case SinkKind::memory: return zc::transfer(from, to.span(), options, ec);
    case SinkKind::borrowed_file:
    case SinkKind::borrowed_append:
    case SinkKind::borrowed_pipe:
    case SinkKind::borrowed_tcp:
    case SinkKind::borrowed_unix: return zc::transfer(from, zc::BorrowedFd(to.fd), options, ec);
  }
  return {};
}

using Move = zc::TransferResult (*)(Source&, Sink&, const zc::Options&, std::error_code&);

struct Report {
  std::size_t cases = 0;
  std::size_t moved = 0;        // went all the way
  std::size_t unavailable = 0;  // the forced strategy said that it can't
  std::vector<std::string> failures{};
};

// All cases of one kind of source.
Report run(SourceKind source, Move move);
// One case; the failures are added to the report.
void run(const Case& c, Move move, Report& report);
// Runs the kind in a thread of its own, counts descriptors, prints the number of cases, fails for every failure.
void require_all(SourceKind source, Move move);

}  // namespace matrix
