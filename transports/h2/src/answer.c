#include <string.h>

#include "engine.h"

enum { NO_COPY = 0x06, MAX_FIELDS = 16 };

#define CONSTANT(name, value)                                                                      \
  {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NO_COPY}

/* trailers is a tuple of (name, value), both bytes. */
static int add_fields(nghttp2_nv *fields, size_t count, PyObject *trailers) {
  Py_ssize_t size = PyTuple_Size(trailers);
  if (size < 0) return -1;
  for (Py_ssize_t i = 0; i < size && count < MAX_FIELDS; i++) {
    PyObject *pair = PyTuple_GetItem(trailers, i), *name, *value;
    if (pair == NULL || (name = PyTuple_GetItem(pair, 0)) == NULL ||
        (value = PyTuple_GetItem(pair, 1)) == NULL)
      return -1;
    char *name_bytes, *value_bytes;
    Py_ssize_t name_size, value_size;
    if (PyBytes_AsStringAndSize(name, &name_bytes, &name_size) < 0 ||
        PyBytes_AsStringAndSize(value, &value_bytes, &value_size) < 0)
      return -1;
    fields[count++] = (nghttp2_nv){(uint8_t *)name_bytes, (uint8_t *)value_bytes,
                                   (size_t)name_size, (size_t)value_size, 0};
  }
  return (int)count;
}

/* With trailers the answer is complete: gRPC calls that trailers-only. */
int answer_begin(Session *self, Stream *stream, const char *status, PyObject *trailers) {
  nghttp2_nv fields[MAX_FIELDS] = {
    CONSTANT(":status", "200"),
    CONSTANT("content-type", "application/grpc"),
  };
  if (status != NULL) {
    fields[0].value = (uint8_t *)status;
    fields[0].valuelen = strlen(status);
    fields[0].flags = 0;
  }
  int count = 2;
  nghttp2_data_provider provider = {{0}, session_read_message};
  stream->answered = true;
  if (trailers != NULL) {
    stream->finished = true;
    if ((count = add_fields(fields, 2, trailers)) < 0) return -1;
  }
  return nghttp2.submit_response(self->session, stream->id, fields, (size_t)count,
                                 trailers == NULL ? &provider : NULL);
}

int answer_trailers(nghttp2_session *session, Stream *stream) {
  nghttp2_nv fields[MAX_FIELDS] = {CONSTANT("grpc-status", "0")};
  int count = 1;
  if (stream->trailers != NULL && (count = add_fields(fields, 0, stream->trailers)) < 0) return -1;
  return nghttp2.submit_trailer(session, stream->id, fields, (size_t)count);
}
