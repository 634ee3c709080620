#include <dlfcn.h>

#include "engine.h"

Nghttp2 nghttp2;

const char *load_nghttp2(void) {
  void *library = dlopen("libnghttp2.so.14", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return dlerror();
  const char *missing = NULL;
#define REQUIRED(result, name, parameters)                                                         \
  *(void **)&nghttp2.name = dlsym(library, "nghttp2_" #name);                                      \
  if (nghttp2.name == NULL) missing = "libnghttp2.so.14 has no nghttp2_" #name;
#define OPTIONAL(result, name, parameters)                                                         \
  *(void **)&nghttp2.name = dlsym(library, "nghttp2_" #name);
  NGHTTP2_FUNCTIONS(REQUIRED)
  NGHTTP2_OPTIONAL_FUNCTIONS(OPTIONAL)
  return missing;
}
