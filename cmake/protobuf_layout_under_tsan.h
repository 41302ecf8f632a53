// Included before everything else by what uses protobuf, in builds with GCC's ThreadSanitizer.
//
// protobuf's map_field.h adds two members to MapFieldBase there. The messages inside the
// distribution's libprotobuf.a (google.protobuf.Struct) were compiled without them, so code that
// saw the longer class would look for a Struct's map 8 bytes too far on. libstdc++ comes first: it
// keeps what the macro means to it.
#ifdef __cplusplus
#include <cstddef>
#endif
#undef __SANITIZE_THREAD__
