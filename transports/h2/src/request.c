/* What a request's headers may be: RFC 9113, sections 8.1.1, 8.2 and 8.3. */
#include <string.h>

#include "engine.h"

enum { METHOD = 1, SCHEME = 2, PATH = 4, AUTHORITY = 8 };

static bool is(const uint8_t *text, size_t size, const char *expected) {
  return size == strlen(expected) && memcmp(text, expected, size) == 0;
}

static unsigned pseudo_header(const uint8_t *name, size_t size) {
  if (is(name, size, ":method")) return METHOD;
  if (is(name, size, ":scheme")) return SCHEME;
  if (is(name, size, ":path")) return PATH;
  if (is(name, size, ":authority")) return AUTHORITY;
  return 0;
}

/* They belong to a connection and mean nothing here. */
static bool is_connection_specific(const uint8_t *name, size_t size) {
  return is(name, size, "connection") || is(name, size, "proxy-connection") ||
         is(name, size, "keep-alive") || is(name, size, "transfer-encoding") ||
         is(name, size, "upgrade");
}

static bool set_length(Stream *stream, const uint8_t *value, size_t size) {
  size_t length = 0;
  if (size == 0 || size > 18) return false;
  for (size_t i = 0; i < size; i++) {
    if (value[i] < '0' || value[i] > '9') return false;
    length = length * 10 + (value[i] - '0');
  }
  if (stream->announced != UNANNOUNCED && stream->announced != length) return false;
  stream->announced = length;
  return true;
}

static bool is_allowed(Stream *stream, const uint8_t *name, size_t name_size, const uint8_t *value,
                       size_t value_size) {
  if (!nghttp2.check_header_value(value, value_size)) return false;
  if (name_size > 0 && name[0] == ':') {
    unsigned pseudo = pseudo_header(name, name_size);
    if (pseudo == 0 || stream->pseudo & pseudo || stream->regular || stream->opened) return false;
    stream->pseudo |= pseudo;
    return pseudo != PATH || value_size > 0;
  }
  stream->regular = true;
  if (!nghttp2.check_header_name(name, name_size)) return false;
  if (is_connection_specific(name, name_size)) return false;
  if (is(name, name_size, "te")) return is(value, value_size, "trailers");
  if (is(name, name_size, "content-length")) return set_length(stream, value, value_size);
  return true;
}

static PyObject **slot_of(Stream *stream, const uint8_t *name, size_t size) {
  if (is(name, size, ":path")) return &stream->path;
  if (is(name, size, ":method")) return &stream->method;
  if (is(name, size, "content-type")) return &stream->content_type;
  if (is(name, size, "grpc-timeout")) return &stream->timeout;
  if (is(name, size, "grpc-encoding")) return &stream->encoding;
  return NULL;
}

/* Seconds as a float; negative if the value is malformed. */
static PyObject *seconds_of(const uint8_t *value, size_t size) {
  static const char units[] = "HMSmun";
  static const double seconds[] = {3600, 60, 1, 1e-3, 1e-6, 1e-9};
  const char *unit = size > 1 && size <= 9 ? memchr(units, value[size - 1], sizeof units - 1) : NULL;
  double count = 0;
  for (size_t i = 0; unit != NULL && i < size - 1; i++) {
    if (value[i] < '0' || value[i] > '9') unit = NULL;
    count = count * 10 + (value[i] - '0');
  }
  return PyFloat_FromDouble(unit != NULL ? count * seconds[unit - units] : -1);
}

/* Notes one header. Breaches are noted too and answered when the headers are complete. */
int request_field(Session *self, Stream *stream, const uint8_t *name, size_t name_size,
                  const uint8_t *value, size_t value_size) {
  stream->header_bytes += name_size + value_size + HEADER_OVERHEAD;
  /* It will be refused, and a byte may have grown to kilobytes: each would cost to look at. */
  if (stream->header_bytes > self->max_headers) return 0;
  if (!is_allowed(stream, name, name_size, value, value_size)) stream->malformed = true;
  if (stream->opened || stream->malformed) return 0;
  PyObject **slot = slot_of(stream, name, name_size);
  if (slot == NULL) return 0;
  PyObject *copy = slot == &stream->timeout
                     ? seconds_of(value, value_size)
                     : PyBytes_FromStringAndSize((const char *)value, (Py_ssize_t)value_size);
  if (copy == NULL) return -1;
  Py_XDECREF(*slot);
  *slot = copy;
  return 0;
}

bool request_is_whole(const Stream *stream) {
  return (stream->pseudo & (METHOD | SCHEME | PATH)) == (METHOD | SCHEME | PATH);
}

int request_malformed(Session *self, Stream *stream) {
  stream->malformed = stream->ignored = true;
  stream_drop_body(self, stream);
  return nghttp2.submit_rst_stream(self->session, 0, stream->id, NGHTTP2_PROTOCOL_ERROR);
}
