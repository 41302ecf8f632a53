# Go programs for tests and benchmarks: the other implementation of ttrpc, as Debian packages it
# (golang-github-containerd-ttrpc-dev, gogottrpc). Built offline, in GOPATH mode, against
# /usr/share/gocode.
#
#   bothy_go_proto(TARGET x.proto import/path)         Go messages and ttrpc stubs of a .proto
#   bothy_go_program(NAME SRCS a.go... PROTOS TARGET...)    a program: BOTHY_GO_BIN/NAME
#
# A machine without Go can build bothy; the tests that need these programs fail there.
find_program(BOTHY_GO go)
find_program(BOTHY_GOGOTTRPC protoc-gen-gogottrpc)
find_path(BOTHY_GO_TTRPC server.go
  PATHS /usr/share/gocode/src/github.com/containerd/ttrpc NO_DEFAULT_PATH)
set(BOTHY_GOPATH ${CMAKE_BINARY_DIR}/gopath)
set(BOTHY_GO_BIN ${CMAKE_BINARY_DIR}/go-bin)
if(BOTHY_GO AND BOTHY_GOGOTTRPC AND BOTHY_GO_TTRPC)
  set(BOTHY_HAVE_GO TRUE)
else()
  set(BOTHY_HAVE_GO FALSE)
  message(STATUS "No Go, or no ttrpc for it: the tests against Go will fail (./dev setup test installs them)")
endif()

function(bothy_go_proto target proto import_path)
  set(out ${BOTHY_GOPATH}/src/${import_path})
  get_filename_component(base ${proto} NAME_WE)
  get_filename_component(folder ${proto} DIRECTORY)
  if(NOT BOTHY_HAVE_GO)
    add_custom_target(${target})
    return()
  endif()
  # The file's own go_package may be one that only its owner may import: ours goes where we say.
  set(mapping "paths=source_relative")
  foreach(known IN ITEMS any empty struct)
    string(APPEND mapping ",Mgoogle/protobuf/${known}.proto=github.com/gogo/protobuf/types")
  endforeach()
  add_custom_command(
    OUTPUT ${out}/${base}.pb.go
    COMMAND ${CMAKE_COMMAND} -E make_directory ${out}
    COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I ${folder}
            --plugin=protoc-gen-gogottrpc=${BOTHY_GOGOTTRPC}
            --gogottrpc_out=plugins=ttrpc,${mapping}:${out} ${proto}
    DEPENDS ${proto}
    COMMENT "Generating Go package ${import_path}"
    VERBATIM)
  add_custom_target(${target} DEPENDS ${out}/${base}.pb.go)
  set_target_properties(${target} PROPERTIES BOTHY_GO_FILE ${out}/${base}.pb.go)
endfunction()

function(bothy_go_program target)
  cmake_parse_arguments(arg "" "" "SRCS;PROTOS" ${ARGN})
  if(NOT BOTHY_HAVE_GO)
    return()
  endif()
  list(TRANSFORM arg_SRCS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set(generated "")
  foreach(proto IN LISTS arg_PROTOS)
    list(APPEND generated $<TARGET_PROPERTY:${proto},BOTHY_GO_FILE>)
  endforeach()
  add_custom_command(
    OUTPUT ${BOTHY_GO_BIN}/${target}
    COMMAND ${CMAKE_COMMAND} -E env GO111MODULE=off GOFLAGS=-trimpath CGO_ENABLED=0
            GOPATH=${BOTHY_GOPATH}:/usr/share/gocode GOCACHE=${CMAKE_SOURCE_DIR}/build/go-cache
            ${BOTHY_GO} build -o ${BOTHY_GO_BIN}/${target} ${arg_SRCS}
    DEPENDS ${arg_SRCS} ${arg_PROTOS} ${generated}
    COMMENT "Building Go program ${target}"
    VERBATIM)
  add_custom_target(${target} ALL DEPENDS ${BOTHY_GO_BIN}/${target})
endfunction()
