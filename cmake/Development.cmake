# What tests, examples and benchmarks share: warnings, sanitizers, a build type. None of it reaches a user's program.
if(NOT CMAKE_BUILD_TYPE AND PROJECT_IS_TOP_LEVEL)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)

set(zerocopy_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(ZEROCOPY_WERROR)
  list(APPEND zerocopy_warnings -Werror)
endif()

add_library(zerocopy_development INTERFACE)
target_compile_options(zerocopy_development INTERFACE ${zerocopy_warnings})
if(ZEROCOPY_SANITIZE)
  # vptr probes memory through a pipe, which it can't have in a test that leaves no descriptors; nothing here is virtual.
  set(sanitize -fsanitize=${ZEROCOPY_SANITIZE} -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # g++'s manual expects false alarms of this warning under sanitizers; the other builds have it.
  target_compile_options(zerocopy_development INTERFACE ${sanitize} $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(zerocopy_development INTERFACE ${sanitize})
endif()

# zerocopy_programs(): every .cpp file of this directory is a program of its own, named after the file.
function(zerocopy_programs)
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(sources AND NOT TARGET fmt::fmt)
    message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR} needs fmt (Debian: libfmt-dev)")
  endif()
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM name)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE zerocopy::zerocopy zerocopy::format zerocopy_development)
  endforeach()
endfunction()
