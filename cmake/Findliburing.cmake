# Finds liburing and gives it the name that Conan uses, liburing::liburing. A package config (Conan, vcpkg) goes first;
# Debian and most distributions have a .pc file only, which is asked for hints where pkg-config is there.
find_package(liburing CONFIG QUIET)
if(TARGET liburing::liburing)
  return()
endif()

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(PC_LIBURING QUIET liburing)
endif()
find_path(liburing_INCLUDE_DIR liburing.h HINTS ${PC_LIBURING_INCLUDE_DIRS})
find_library(liburing_LIBRARY uring HINTS ${PC_LIBURING_LIBRARY_DIRS})
mark_as_advanced(liburing_INCLUDE_DIR liburing_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  liburing REQUIRED_VARS liburing_LIBRARY liburing_INCLUDE_DIR VERSION_VAR PC_LIBURING_VERSION)

if(liburing_FOUND)
  add_library(liburing::liburing UNKNOWN IMPORTED GLOBAL)
  set_target_properties(liburing::liburing PROPERTIES
    IMPORTED_LOCATION "${liburing_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${liburing_INCLUDE_DIR}")
endif()
