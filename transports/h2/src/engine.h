/* One server side of an HTTP/2 connection, with gRPC's framing of messages on top. A session knows
 * neither sockets nor calls: bytes and decisions go in, events and bytes come out. A wire carries a
 * session's bytes over a socket. */
#ifndef ENGINE_H
#define ENGINE_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdbool.h>

#include "nghttp2_abi.h"

extern Nghttp2 nghttp2;

/* Fills nghttp2 from the system's library. Returns NULL, or why that failed. */
const char *load_nghttp2(void);

enum { OPENED, MESSAGE, ENDED, REFUSED, CLOSED, REQUEST };

/* What a wire's owner is told. */
enum { HEARD, FLOWS, RESTS, BROKEN, GONE };

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

/* Answers of one method that are true now, by request. */
typedef struct {
  PyObject_HEAD
  PyObject *known;
  long given;
  double seconds;
} Answers;

/* Who calls: what may be done for it without asking, and what was done. Seconds of the monotonic
 * clock. */
typedef struct {
  PyObject_HEAD
  long credit;
  double credit_until, rests_until, used;
  /* An owner was told that it has to be settled. */
  bool told;
} Account;

typedef struct {
  PyObject_HEAD
  nghttp2_session *session;
  PyObject *events;
  /* Answers by path, and who asks; NULL if every request is for others to answer. */
  PyObject *answers;
  Account *account;
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

typedef struct Wire Wire;

/* All sockets of one event loop, in an epoll of their own that the loop looks at. Those that are due
 * have something to send that was said without a call in Python; on_due is called for the first. */
typedef struct {
  PyObject_HEAD
  int epoll;
  PyObject *on_due;
  Wire *first_due, *last_due;
} Sockets;

/* A session's socket, which stays its opener's to close. */
struct Wire {
  PyObject_HEAD
  Sockets *sockets;
  Session *session;
  PyObject *owner;
  int fd;
  /* What epoll watches for. */
  uint32_t interest;
  /* heard: the peer has said something. blocked: the socket takes no more for now. failed: it
   * takes nothing more for good, or its owner cannot be told what was heard. hungry: the owner has
   * more to say as soon as something was sent. */
  bool reads, heard, blocked, failed, hungry, due;
  Wire *next_due;
  /* What the socket did not take. */
  uint8_t *rest;
  size_t rest_size, rest_sent;
};

/* object.c */
extern PyType_Spec session_type;
extern PyTypeObject *session_class;
PyObject *session_failed(int code);
PyObject *session_receive(Session *self, const uint8_t *data, size_t size);
PyObject *session_take_events(Session *self);
ssize_t session_put_together(Session *self, size_t limit, const uint8_t **bytes);
bool session_is_alive(const Session *self);

/* at_once.c */
extern PyType_Spec answers_type, account_type;
extern PyTypeObject *answers_class, *account_class;
double monotonic_seconds(void);
int answer_at_once(Session *self, Stream *stream, PyObject *message);

/* sockets.c */
extern PyType_Spec sockets_type;
void sockets_due(Sockets *self, Wire *wire);

/* sender.c */
extern PyType_Spec sender_type;
extern PyTypeObject *sender_class;
PyObject *sender_new(PyObject *wire, PyObject *args);

/* wire.c */
extern PyType_Spec wire_type;
extern PyTypeObject *wire_class;
PyObject *wire_new(Sockets *sockets, int fd, Session *session, PyObject *owner);
int wire_watch(Wire *self);
ssize_t wire_flush(Wire *self);
void wire_fail(Wire *self);

/* call.c: methods of Session, described in _engine.pyi. */
PyObject *call_message(PyObject *object, PyObject *args);
PyObject *call_queued(PyObject *object, PyObject *stream);
PyObject *call_reply(PyObject *object, PyObject *args);
PyObject *call_finish(PyObject *object, PyObject *args);
PyObject *call_took(PyObject *object, PyObject *args);
PyObject *call_reset(PyObject *object, PyObject *args);
bool call_is_crowded(const Session *self);
int call_answer(Session *self, Stream *stream, PyObject *message);
Stream *call_find(Session *self, int id);
int call_say(Session *self, Stream *stream, PyObject *message);

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
