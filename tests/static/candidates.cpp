// The candidate table, checked at compile time: to compile is to pass.
#include <zerocopy/detail/candidates.hpp>
#include <zerocopy/endpoint.hpp>
#include <zerocopy/transfer.hpp>

#include <string>
#include <vector>

// A user's own type.
struct Upload {
  int fd;
};
template <>
struct zerocopy::endpoint_traits<Upload> {
  static FileRange source(const Upload& u) noexcept { return {BorrowedFd(u.fd), 0, 10}; }
};

namespace static_tests {

using namespace zerocopy;
using namespace zerocopy::detail;
using enum zerocopy::Strategy;

// Every pair of kinds that exist at run time can be served, and by read_write where nothing else does.
static_assert([] {
  for (std::size_t f = 0; f < kind_count; ++f) {
    for (std::size_t t = 0; t < kind_count; ++t) {
      const Kind from = static_cast<Kind>(f);
      const Kind to = static_cast<Kind>(t);
      const bool impossible = from == Kind::any || to == Kind::any || to == Kind::in_flight;
      if (impossible != candidates(from, to).empty()) return false;
      if (!impossible && !candidates(from, to).contains(read_write)) return false;
    }
  }
  return true;
}());

// sendfile: files only as a source, never into a range (no output offset), a pipe (it would block) or a message.
static_assert(candidates(Kind::file, Kind::socket).contains(sendfile));
static_assert(candidates(Kind::file, Kind::file).contains(sendfile));
static_assert(!candidates(Kind::file, Kind::range).contains(sendfile));
static_assert(!candidates(Kind::file, Kind::pipe).contains(sendfile));
static_assert(!candidates(Kind::file, Kind::messages).contains(sendfile));
static_assert(!candidates(Kind::pipe, Kind::socket).contains(sendfile));

// Only files share extents or are copied by the file system.
static_assert(candidates(Kind::range, Kind::range).contains(copy_file_range));
static_assert(!candidates(Kind::file, Kind::socket).contains(copy_file_range));
static_assert(!candidates(Kind::pipe, Kind::file).contains(copy_file_range));

// A message is never spliced into a stream, nor a stream into a message.
static_assert(!candidates(Kind::messages, Kind::socket).contains(splice));
static_assert(!candidates(Kind::socket, Kind::messages).contains(splice));

// No code is generated for an impossible strategy.
static_assert(possible<Kind::file, Kind::socket>() ==
              StrategySet{sendfile, splice, mmap_write, read_write, send_zerocopy});
static_assert(possible<Kind::pipe, Kind::socket>() == StrategySet{splice, read_write});
static_assert(possible<Kind::socket, Kind::memory>() == StrategySet{read_write});
static_assert(possible<Kind::memory, Kind::range>() == StrategySet{read_write, vmsplice});
static_assert(possible<Kind::any, Kind::any>().contains(reflink));
static_assert(!possible<Kind::any, Kind::any>().contains(vmsplice));

// What is a source and what is a sink.
static_assert(source<File> && sink<File>);
static_assert(source<FileRange> && sink<FileRange>);
static_assert(source<MemoryFile> && sink<MemoryFile>);
static_assert(source<MappedFile> && !sink<MappedFile>);
static_assert(source<WritableMappedFile> && sink<WritableMappedFile>);
static_assert(source<PipeReader> && !sink<PipeReader>);
static_assert(!source<PipeWriter> && sink<PipeWriter>);
static_assert(source<Socket> && sink<Socket>);
static_assert(source<BorrowedFd> && sink<BorrowedFd>);
static_assert(source<std::span<const std::byte>> && !sink<std::span<const std::byte>>);
static_assert(source<std::span<std::byte>> && sink<std::span<std::byte>>);
static_assert(!source<int> && !sink<int>);
static_assert(!source<std::string> && !sink<std::vector<std::byte>>);

static_assert(source<Upload> && !sink<Upload>);
static_assert(source_kind<Upload>() == Kind::range);

// Values that tests and users hold by the thousand.
static_assert(sizeof(StrategySet) == 2);
static_assert(std::is_nothrow_move_constructible_v<TransferResult> && !std::is_copy_constructible_v<TransferResult>);
static_assert(std::is_nothrow_move_constructible_v<Stranded> && !std::is_copy_constructible_v<Stranded>);

}  // namespace static_tests
