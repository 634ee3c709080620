#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum { FIRST_ROOM = 1024 };

size_t all_buffered, all_unread, all_calls;

static void unbuffer(Session *self, size_t size) {
  self->buffered -= size;
  all_buffered -= size;
}

/* What a message is counted as while it waits. */
static size_t weight(PyObject *message) { return PREFIX_BYTES + (size_t)PyBytes_Size(message); }

static void forget_first(Session *self, Stream *stream) {
  Outgoing *first = stream->first;
  size_t size = weight(first->message);
  stream->queued -= size;
  self->unread -= size;
  all_unread -= size;
  stream->first = first->next;
  if (stream->first == NULL) stream->last = NULL;
  Py_DECREF(first->message);
  free(first);
}

Stream *stream_new(Session *self, int32_t id) {
  Stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) return NULL;
  stream->id = id;
  stream->announced = UNANNOUNCED;
  self->calls++;
  all_calls++;
  stream->next = self->streams;
  if (self->streams != NULL) self->streams->previous = stream;
  self->streams = stream;
  return stream;
}

void stream_free(Session *self, Stream *stream) {
  if (stream->previous != NULL) stream->previous->next = stream->next;
  else self->streams = stream->next;
  if (stream->next != NULL) stream->next->previous = stream->previous;
  if (self->opening == stream) {
    self->opening = NULL;
    Py_CLEAR(self->first);
  }
  stream_drop_body(self, stream);
  unbuffer(self, stream->unread_bytes + stream->unread * MESSAGE_COST);
  stream->offset = 0;
  stream_drop_queue(self, stream);
  self->calls--;
  all_calls--;
  Py_XDECREF(stream->path);
  Py_XDECREF(stream->method);
  Py_XDECREF(stream->content_type);
  Py_XDECREF(stream->timeout);
  Py_XDECREF(stream->encoding);
  Py_XDECREF(stream->trailers);
  free(stream);
}

static size_t min(size_t a, size_t b) { return a < b ? a : b; }

/* Memory follows what was received, not what was announced. */
static int grow_body(Stream *stream, size_t size) {
  if (size <= stream->body_room) return 0;
  size_t room = stream->body_room ? stream->body_room : FIRST_ROOM;
  while (room < size) room *= 2;
  uint8_t *body = realloc(stream->body, room);
  if (body == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  stream->body = body;
  stream->body_room = room;
  return 0;
}

void stream_drop_body(Session *self, Stream *stream) {
  unbuffer(self, stream->body_size);
  free(stream->body);
  stream->body = NULL;
  stream->body_size = stream->body_room = 0;
}

static int complete(Session *self, Stream *stream) {
  PyObject *message =
    PyBytes_FromStringAndSize((const char *)stream->body, (Py_ssize_t)stream->body_size);
  if (message == NULL) return -1;
  stream->unread++;
  stream->unread_bytes += stream->body_size;
  self->buffered += stream->body_size + MESSAGE_COST;
  all_buffered += stream->body_size + MESSAGE_COST;
  stream_drop_body(self, stream);
  stream->prefix_size = 0;
  if (self->opening != stream || self->first != NULL)
    return session_event(self, MESSAGE, stream->id, message);
  self->first = message;
  return 0;
}

/* The call has taken a message of that size. */
void stream_took(Session *self, Stream *stream, size_t size) {
  stream->unread--;
  stream->unread_bytes -= size;
  unbuffer(self, size + MESSAGE_COST);
}

static int begin_body(Session *self, Stream *stream) {
  const uint8_t *p = stream->prefix;
  if (p[0] != 0) return session_refuse(self, stream, INTERNAL, "a message is marked compressed");
  stream->body_length = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
  if (stream->body_length > self->max_message)
    return session_refuse(self, stream, RESOURCE_EXHAUSTED, "a message is larger than the limit");
  return 0;
}

static bool is_crowded(const Session *self) {
  return self->buffered > self->max_buffered ||
         (all_buffered > MAX_ALL_BYTES && self->buffered > FAIR_BYTES);
}

int stream_receive(Session *self, Stream *stream, const uint8_t *data, size_t size) {
  size_t received = size;
  stream->received += size;
  while (size > 0 && !stream->ignored) {
    if (stream->prefix_size < PREFIX_BYTES) {
      size_t part = min(size, PREFIX_BYTES - stream->prefix_size);
      memcpy(stream->prefix + stream->prefix_size, data, part);
      stream->prefix_size += part, data += part, size -= part;
      if (stream->prefix_size < PREFIX_BYTES) break;
      if (begin_body(self, stream) < 0) return -1;
      if (stream->ignored) break;
    }
    size_t part = min(size, stream->body_length - stream->body_size);
    if (part > 0 && grow_body(stream, stream->body_size + part) < 0) return -1;
    if (part > 0) memcpy(stream->body + stream->body_size, data, part);
    stream->body_size += part, data += part, size -= part;
    self->buffered += part;
    all_buffered += part;
    if (is_crowded(self)) {
      if (session_refuse(self, stream, RESOURCE_EXHAUSTED, "too many requests are unfinished") < 0)
        return -1;
    } else if (stream->body_size == stream->body_length) {
      if (complete(self, stream) < 0) return -1;
    }
  }
  if (stream->unread > READ_AHEAD) {
    stream->withheld += received;
    return 0;
  }
  return nghttp2.session_consume_stream(self->session, stream->id, received);
}

int stream_end(Session *self, Stream *stream) {
  stream->ended = true;
  if (stream->announced != UNANNOUNCED && stream->announced != stream->received)
    return request_malformed(self, stream);
  if (stream->ignored) return 0;
  if (stream->prefix_size > 0)
    return session_refuse(self, stream, INTERNAL, "the request ends inside a message");
  if (self->opening == stream && self->first != NULL) return session_request(self, stream);
  return session_event(self, ENDED, stream->id, Py_NewRef(Py_None));
}

int stream_queue(Session *self, Stream *stream, PyObject *message) {
  Outgoing *outgoing = malloc(sizeof *outgoing);
  if (outgoing == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  outgoing->next = NULL;
  outgoing->message = Py_NewRef(message);
  if (stream->last != NULL) stream->last->next = outgoing;
  else stream->first = outgoing;
  stream->last = outgoing;
  size_t size = weight(message);
  stream->queued += size;
  self->unread += size;
  all_unread += size;
  return 0;
}

/* All but a message that is half sent, for what follows it must not be taken for its rest. */
void stream_drop_queue(Session *self, Stream *stream) {
  Outgoing *half = NULL;
  if (stream->offset > 0) {
    half = stream->first;
    stream->first = half->next;
  }
  while (stream->first != NULL) forget_first(self, stream);
  if (half != NULL) {
    half->next = NULL;
    stream->first = stream->last = half;
  }
}

/* The next bytes to be sent; returns how many. */
size_t stream_fill(Session *self, Stream *stream, uint8_t *buffer, size_t room) {
  size_t filled = 0;
  while (stream->first != NULL && filled < room) {
    PyObject *message = stream->first->message;
    size_t size = (size_t)PyBytes_Size(message);
    uint8_t prefix[PREFIX_BYTES] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
                                    (uint8_t)(size >> 8), (uint8_t)size};
    while (stream->offset < PREFIX_BYTES && filled < room)
      buffer[filled++] = prefix[stream->offset++];
    if (stream->offset < PREFIX_BYTES) break;
    size_t sent = stream->offset - PREFIX_BYTES, part = min(size - sent, room - filled);
    memcpy(buffer + filled, PyBytes_AsString(message) + sent, part);
    filled += part, stream->offset += part;
    if (sent + part < size) break;
    stream->offset = 0;
    forget_first(self, stream);
  }
  return filled;
}
