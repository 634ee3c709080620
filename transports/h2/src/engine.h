/* One server side of an HTTP/2 connection, with gRPC's framing of messages on top. Knows neither
 * sockets nor calls: bytes and decisions go in, events and bytes come out. */
#ifndef ENGINE_H
#define ENGINE_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "nghttp2_abi.h"

extern Nghttp2 nghttp2;

/* Fills nghttp2 from the system's library. Returns NULL, or why that failed. */
const char *load_nghttp2(void);

enum { OPENED, MESSAGE, ENDED, REFUSED, CLOSED, REQUEST };

/* gRPC status codes that are decided here. */
enum { RESOURCE_EXHAUSTED = 8, INTERNAL = 13 };

enum {
  PREFIX_BYTES = 5,
  /* More messages than this are held back by flow control until the call has taken some. */
  READ_AHEAD = 16,
};

#define UNANNOUNCED SIZE_MAX

/* Of all connections together; beyond it who has more than a fair part gets no more, so that the
 * greedy do not shut out the modest. */
enum {
  MAX_ALL_BYTES = 64 * 1024 * 1024,
  FAIR_BYTES = 64 * 1024,
  MAX_ALL_CALLS = 32 * 1024,
  FAIR_CALLS = 16,
};

/* What a received message costs beside its bytes: the objects around it. Without it a client that
 * sends millions of empty ones would hold memory for nothing. */
enum { MESSAGE_COST = 64 };

/* What RFC 9113, 6.5.2, counts for a field beside its bytes. */
enum { HEADER_OVERHEAD = 32 };

extern size_t all_buffered, all_unread, all_calls;

typedef struct Outgoing {
  struct Outgoing *next;
  PyObject *message;
} Outgoing;

/* One call. */
typedef struct Stream {
  struct Stream *next, *previous;
  int32_t id;

  /* The request's headers that matter: bytes, seconds as a float for the timeout, or NULL. */
  PyObject *path, *method, *content_type, *timeout, *encoding;
  size_t header_bytes;
  /* Which pseudo headers came, and whether anything else did after which none may come. */
  unsigned pseudo;
  bool regular, malformed, opened, ended, ignored;
  /* The request's size as its content-length has it, and as it is. */
  size_t announced, received;

  /* The message that is being received. */
  uint8_t prefix[PREFIX_BYTES];
  size_t prefix_size;
  uint8_t *body;
  size_t body_size, body_room, body_length;

  /* Messages that were given out and not yet taken, and the bytes the peer is not given back. */
  size_t unread, unread_bytes, withheld;

  /* What is to be sent: whole messages, then the trailers. offset is into the first message, its
   * prefix included. */
  Outgoing *first, *last;
  size_t offset, queued;
  bool answered, deferred, finished, trailed;
  /* Nobody waits to hear of the end. */
  bool quiet;
  PyObject *trailers;
} Stream;

typedef struct {
  PyObject_HEAD
  nghttp2_session *session;
  PyObject *events;
  /* The call that was opened last, and its first message, while nothing was told of them: a request
   * that comes as one is told as one. */
  Stream *opening;
  PyObject *first;
  Stream *streams;
  size_t max_message, max_headers, max_buffered, max_unread;
  /* Bytes of requests that are not finished or not taken, and of answers that are not read. */
  size_t buffered, unread, calls;
  double allowance, refilled;
  /* carried: the DATA frame that is being read has brought something. */
  bool calmed, carried;
  /* busy: nghttp2 is at work, and may not be called by whoever the collection of garbage runs. */
  bool busy, broken;
} Session;

/* object.c */
extern PyType_Spec session_type;
PyObject *session_failed(int code);

/* call.c: methods of Session, described in _engine.pyi. */
PyObject *call_message(PyObject *object, PyObject *args);
PyObject *call_queued(PyObject *object, PyObject *stream);
PyObject *call_reply(PyObject *object, PyObject *args);
PyObject *call_finish(PyObject *object, PyObject *args);
PyObject *call_took(PyObject *object, PyObject *args);
PyObject *call_reset(PyObject *object, PyObject *args);
bool call_is_crowded(const Session *self);

/* stream.c */
Stream *stream_new(Session *self, int32_t id);
void stream_free(Session *self, Stream *stream);
int stream_receive(Session *self, Stream *stream, const uint8_t *data, size_t size);
int stream_end(Session *self, Stream *stream);
void stream_drop_body(Session *self, Stream *stream);
void stream_took(Session *self, Stream *stream, size_t size);
size_t stream_fill(Session *self, Stream *stream, uint8_t *buffer, size_t room);
int stream_queue(Session *self, Stream *stream, PyObject *message);
void stream_drop_queue(Session *self, Stream *stream);

/* request.c */
int request_field(Session *self, Stream *stream, const uint8_t *name, size_t name_size,
                  const uint8_t *value, size_t value_size);
bool request_is_whole(const Stream *stream);
int request_malformed(Session *self, Stream *stream);

/* session.c */
int session_event(Session *self, int kind, int32_t id, PyObject *value);
int session_request(Session *self, Stream *stream);
int session_tell_opened(Session *self);
int session_refuse(Session *self, Stream *stream, int code, const char *text);
nghttp2_session *session_open(Session *self, uint32_t max_streams, uint32_t window);
ssize_t session_read_message(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room,
                             uint32_t *flags, nghttp2_data_source *source, void *user);

/* answer.c */
int answer_check(Session *self, PyObject *trailers);
int answer_begin(Session *self, Stream *stream, const char *status, PyObject *trailers);
int answer_trailers(nghttp2_session *session, Stream *stream);

#endif
