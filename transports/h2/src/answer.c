#include <string.h>

#include "engine.h"

/* NO_COPY: neither name nor value, which are constants. */
enum { NO_COPY = 0x06, MAX_FIELDS = 16, OWN_FIELDS = 2 };

#define CONSTANT(name, value)                                                                      \
  {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NO_COPY}

/* The bytes of one of the trailers. Returns -1 and sets an exception if it is none. */
static int field_of(PyObject *trailers, Py_ssize_t index, nghttp2_nv *field) {
  PyObject *pair = PyTuple_GetItem(trailers, index);
  char *name_bytes, *value_bytes;
  Py_ssize_t name_size, value_size;
  if (pair == NULL || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a trailer must be a pair");
    return -1;
  }
  if (PyBytes_AsStringAndSize(PyTuple_GetItem(pair, 0), &name_bytes, &name_size) < 0 ||
      PyBytes_AsStringAndSize(PyTuple_GetItem(pair, 1), &value_bytes, &value_size) < 0)
    return -1;
  *field = (nghttp2_nv){(uint8_t *)name_bytes, (uint8_t *)value_bytes, (size_t)name_size,
                        (size_t)value_size, 0};
  return 0;
}

/* What cannot be sent later, or would be taken for something else, is refused at once. */
int answer_check(Session *self, PyObject *trailers) {
  Py_ssize_t count = PyTuple_Size(trailers);
  if (count < 0) return -1;
  size_t size = 0;
  for (Py_ssize_t i = 0; i < count; i++) {
    nghttp2_nv field;
    if (field_of(trailers, i, &field) < 0) return -1;
    size += field.namelen + field.valuelen + HEADER_OVERHEAD;
    if (!nghttp2.check_header_name(field.name, field.namelen) || field.name[0] == ':' ||
        !nghttp2.check_header_value(field.value, field.valuelen)) {
      PyErr_SetString(PyExc_ValueError, "a trailer is no HTTP field");
      return -1;
    }
  }
  if (count <= MAX_FIELDS - OWN_FIELDS && size <= self->max_headers) return 0;
  PyErr_SetString(PyExc_ValueError, "the trailers are too many or too long");
  return -1;
}

/* Trailers that were checked before. */
static size_t add_fields(nghttp2_nv *fields, size_t count, PyObject *trailers) {
  Py_ssize_t size = PyTuple_Size(trailers);
  for (Py_ssize_t i = 0; i < size; i++)
    if (field_of(trailers, i, &fields[count]) == 0) count++;
  return count;
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
  size_t count = OWN_FIELDS;
  nghttp2_data_provider provider = {{0}, session_read_message};
  stream->answered = true;
  if (trailers != NULL) {
    stream->finished = true;
    count = add_fields(fields, count, trailers);
  }
  return nghttp2.submit_response(self->session, stream->id, fields, count,
                                 trailers == NULL ? &provider : NULL);
}

int answer_trailers(nghttp2_session *session, Stream *stream) {
  nghttp2_nv fields[MAX_FIELDS] = {CONSTANT("grpc-status", "0")};
  size_t count = stream->trailers == NULL ? 1 : add_fields(fields, 0, stream->trailers);
  return nghttp2.submit_trailer(session, stream->id, fields, count);
}
