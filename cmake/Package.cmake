# What `cmake --install` adds to the headers: the CMake package, the find module that it needs, and the .pc files.
# Everything goes to share/, since none of it depends on the machine.
include(CMakePackageConfigHelpers)

configure_package_config_file(cmake/zerocopyConfig.cmake.in zerocopyConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(zerocopyConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/zerocopyConfig.cmake ${PROJECT_BINARY_DIR}/zerocopyConfigVersion.cmake
              cmake/Findliburing.cmake DESTINATION ${package_dir})

# The .pc files find the prefix from where they lie, so that an installed tree can be moved.
file(RELATIVE_PATH prefix_of_pkgconfig /${CMAKE_INSTALL_DATADIR}/pkgconfig /)
function(zerocopy_pkg_config name requires definitions)
  configure_file(cmake/zerocopy.pc.in ${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
endfunction()
zerocopy_pkg_config(zerocopy liburing "")
zerocopy_pkg_config(zerocopy-core "" " -DZEROCOPY_NO_URING")

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/zerocopy)
