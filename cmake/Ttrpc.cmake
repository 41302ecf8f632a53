# bothy_ttrpc_library(NAME PROTOS x.proto... [DEPS...]): static library NAME with the protobuf and
# ttrpc code of the given files, which lie in the calling folder. Users include "x.pb.h" and
# "x.ttrpc.h".
function(bothy_ttrpc_library name)
  cmake_parse_arguments(arg "" "" "PROTOS;DEPS" ${ARGN})
  set(out ${CMAKE_CURRENT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(sources "")
  foreach(proto IN LISTS arg_PROTOS)
    get_filename_component(base ${proto} NAME_WE)
    set(generated ${out}/${base}.pb.cc ${out}/${base}.pb.h ${out}/${base}.ttrpc.cc ${out}/${base}.ttrpc.h)
    add_custom_command(
      OUTPUT ${generated}
      COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I ${CMAKE_CURRENT_SOURCE_DIR}
              --plugin=protoc-gen-ttrpc-cpp=$<TARGET_FILE:protoc-gen-ttrpc-cpp>
              --cpp_out=${out} --ttrpc-cpp_out=${out} ${proto}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto} protoc-gen-ttrpc-cpp
      COMMENT "Generating ${base}.pb and ${base}.ttrpc"
      VERBATIM)
    list(APPEND sources ${generated})
  endforeach()
  add_library(${name} STATIC ${sources})
  # What protoc writes is not ours to keep free of warnings.
  target_include_directories(${name} SYSTEM PUBLIC ${out})
  target_compile_options(${name} PRIVATE -w)
  target_link_libraries(${name} PUBLIC bothy_ttrpc ${arg_DEPS})
endfunction()
