#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* More than one turn of the event loop sends, but for a frame that is larger by itself. */
enum { SEND_ROOM = 96 * 1024 };

static PyObject *failed(int code) {
  if (!PyErr_Occurred()) PyErr_Format(PyExc_ConnectionError, "%s", nghttp2.strerror(code));
  return NULL;
}

static PyObject *new_session(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  static char *names[] = {"max_message_bytes", "max_header_bytes", "max_buffered_bytes",
                          "max_unread_bytes", "max_streams", "window_bytes", NULL};
  Py_ssize_t message, headers, buffered, unread;
  unsigned int streams, window;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "$nnnnII", names, &message, &headers, &buffered,
                                   &unread, &streams, &window))
    return NULL;
  if (message < 0 || headers < 0 || buffered < 0 || unread < 0 || window > INT32_MAX) {
    PyErr_SetString(PyExc_ValueError, "a limit is negative, or the window above 2**31 - 1");
    return NULL;
  }
  allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Session *self = (Session *)allocate(type, 0);
  if (self == NULL) return NULL;
  self->max_message = (size_t)message;
  self->max_headers = (size_t)headers;
  self->max_buffered = (size_t)buffered;
  self->max_unread = (size_t)unread;
  self->events = PyList_New(0);
  self->session = session_open(self, streams, window);
  if (self->events != NULL && self->session != NULL) return (PyObject *)self;
  Py_DECREF(self);
  return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

static void drop_calls(Session *self) {
  if (self->session != NULL) nghttp2.session_del(self->session);
  self->session = NULL;
  while (self->streams != NULL) stream_free(self, self->streams);
}

static void free_session(PyObject *object) {
  Session *self = (Session *)object;
  PyTypeObject *type = Py_TYPE(object);
  drop_calls(self);
  Py_XDECREF(self->events);
  Py_XDECREF(self->first);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

/* The events so far; the session begins a new list. */
static PyObject *take_events(Session *self) {
  if (session_tell_opened(self) < 0) return NULL;
  PyObject *events = self->events, *fresh = PyList_New(0);
  if (fresh == NULL) return NULL;
  self->events = fresh;
  return events;
}

static bool is_open(const Session *self) {
  if (self->session == NULL) PyErr_SetString(PyExc_ConnectionError, "the session is closed");
  return self->session != NULL;
}

static bool begin_work(const Session *self) {
  if (self->busy) PyErr_SetString(PyExc_RuntimeError, "the session is at work already");
  return !self->busy && is_open(self);
}

/* Gives back at once what the calls hold, however long the session itself is referred to. */
static PyObject *close_session(PyObject *object, PyObject *unused) {
  (void)unused;
  Session *self = (Session *)object;
  if (self->session == NULL) Py_RETURN_NONE;
  if (!begin_work(self)) return NULL;
  drop_calls(self);
  Py_RETURN_NONE;
}

static PyObject *receive(PyObject *object, PyObject *data) {
  Session *self = (Session *)object;
  Py_buffer view;
  if (!begin_work(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
  self->busy = true;
  ssize_t taken = nghttp2.session_mem_recv(self->session, view.buf, (size_t)view.len);
  self->busy = false;
  PyBuffer_Release(&view);
  if (taken < 0) return failed((int)taken);
  return take_events(self);
}

static PyObject *events(PyObject *object, PyObject *unused) {
  (void)unused;
  return take_events((Session *)object);
}

/* What is put together to be sent. One is kept for the next time; whoever needs another meanwhile,
 * which only the collection of garbage can bring about, makes its own. */
static struct Room {
  uint8_t *bytes;
  size_t size;
} spare;

static bool make_room(struct Room *room, size_t size) {
  if (size <= room->size) return true;
  size = size < SEND_ROOM ? SEND_ROOM : size;
  uint8_t *bytes = realloc(room->bytes, size);
  if (bytes == NULL) return false;
  *room = (struct Room){bytes, size};
  return true;
}

/* Frames are collected up to about `limit` bytes, one system call's worth. */
static PyObject *send(PyObject *object, PyObject *argument) {
  Session *self = (Session *)object;
  Py_ssize_t limit = PyLong_AsSsize_t(argument), total = 0;
  if ((limit == -1 && PyErr_Occurred()) || !begin_work(self)) return NULL;
  struct Room room = spare;
  spare = (struct Room){NULL, 0};
  PyObject *sent = NULL;
  while (total < limit && !self->broken) {
    const uint8_t *frame;
    self->busy = true;
    ssize_t size = nghttp2.session_mem_send(self->session, &frame);
    self->busy = false;
    if (size == 0) break;
    if (size < 0 || !make_room(&room, (size_t)(total + size))) {
      /* What follows would not fit to what was lost. */
      self->broken = true;
      sent = size < 0 ? failed((int)size) : PyErr_NoMemory();
      goto done;
    }
    memcpy(room.bytes + total, frame, (size_t)size);
    total += size;
  }
  sent = PyBytes_FromStringAndSize((const char *)room.bytes, total);
  if (sent == NULL) self->broken = true;
done:
  free(spare.bytes);
  spare = room;
  return sent;
}

static Stream *find(Session *self, int id) {
  if (self->session == NULL) return NULL;
  return nghttp2.session_get_stream_user_data(self->session, id);
}

static int resume(Session *self, Stream *stream) {
  if (!stream->deferred) return 0;
  stream->deferred = false;
  return nghttp2.session_resume_data(self->session, stream->id);
}

/* The prefix has four bytes for the size. */
static bool fits(PyObject *bytes) {
  if ((size_t)PyBytes_Size(bytes) <= UINT32_MAX) return true;
  PyErr_SetString(PyExc_OverflowError, "a message is larger than gRPC can carry");
  return false;
}

static bool is_crowded(const Session *self) {
  return self->unread > self->max_unread ||
         (all_unread > MAX_ALL_BYTES && self->unread > FAIR_BYTES);
}

/* Queues a message; returns the bytes that wait on the stream now, or -1 if it is gone. */
static PyObject *message(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code;
  PyObject *bytes;
  if (!PyArg_ParseTuple(args, "iS", &id, &bytes)) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->finished) return PyLong_FromLong(-1);
  if (!fits(bytes)) return NULL;
  if (stream_queue(self, stream, bytes) < 0) return NULL;
  code = stream->answered ? resume(self, stream) : answer_begin(self, stream, NULL, NULL);
  if (code != 0) return failed(code);
  return PyLong_FromSize_t(stream->queued);
}

static PyObject *queued(PyObject *object, PyObject *argument) {
  Stream *stream = find((Session *)object, (int)PyLong_AsLong(argument));
  if (PyErr_Occurred()) return NULL;
  return stream == NULL ? PyLong_FromLong(-1) : PyLong_FromSize_t(stream->queued);
}

/* A whole answer: one message and status 0. Its end is not told. False if the
 * client has too many answers to read already. */
static PyObject *reply(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code;
  PyObject *bytes;
  if (!PyArg_ParseTuple(args, "iS", &id, &bytes)) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->answered) Py_RETURN_TRUE;
  if (!fits(bytes)) return NULL;
  if (is_crowded(self)) Py_RETURN_FALSE;
  if (stream_queue(self, stream, bytes) < 0) return NULL;
  stream->finished = stream->quiet = true;
  if ((code = answer_begin(self, stream, NULL, NULL)) != 0) return failed(code);
  Py_RETURN_TRUE;
}

/* Ends the answer. Queued messages are sent before, unless `drop` says that they do not matter. */
static PyObject *finish(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code, drop = 0;
  PyObject *trailers;
  const char *status = NULL;
  if (!PyArg_ParseTuple(args, "iO|pz", &id, &trailers, &drop, &status)) return NULL;
  if (!PyTuple_Check(trailers)) {
    PyErr_SetString(PyExc_TypeError, "trailers must be a tuple");
    return NULL;
  }
  if (answer_check(self, trailers) < 0) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->finished) Py_RETURN_NONE;
  stream->ignored = true;
  stream_drop_body(self, stream);
  if (drop) stream_drop_queue(self, stream);
  if (!stream->answered) {
    code = answer_begin(self, stream, status, trailers);
  } else {
    stream->finished = true;
    stream->trailers = Py_NewRef(trailers);
    if (stream->first == NULL) {
      /* At once: the peer's window, which holds data back, does not hold trailers. */
      stream->trailed = true;
      code = answer_trailers(self->session, stream);
    } else {
      code = resume(self, stream);
    }
  }
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

/* The call has taken a message of so many bytes: the peer may send more. */
static PyObject *took(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id;
  Py_ssize_t bytes;
  if (!PyArg_ParseTuple(args, "in", &id, &bytes)) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->unread == 0) Py_RETURN_NONE;
  if (bytes < 0 || (size_t)bytes > stream->unread_bytes) {
    PyErr_SetString(PyExc_ValueError, "no message of that size waits to be taken");
    return NULL;
  }
  stream_took(self, stream, (size_t)bytes);
  if (stream->withheld == 0 || stream->unread > READ_AHEAD) Py_RETURN_NONE;
  int code = nghttp2.session_consume_stream(self->session, id, stream->withheld);
  stream->withheld = 0;
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

static PyObject *reset(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id;
  unsigned int error;
  if (!PyArg_ParseTuple(args, "iI", &id, &error)) return NULL;
  if (find(self, id) == NULL) Py_RETURN_NONE;
  int code = nghttp2.submit_rst_stream(self->session, 0, id, error);
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

/* No new calls: first a warning that costs nobody a call, then, with `last`, the final word. */
static PyObject *go_away(PyObject *object, PyObject *argument) {
  nghttp2_session *session = ((Session *)object)->session;
  int last = PyObject_IsTrue(argument);
  if (last < 0) return NULL;
  if (session == NULL) Py_RETURN_NONE;
  int code = last ? nghttp2.submit_goaway(session, 0,
                                          nghttp2.session_get_last_proc_stream_id(session),
                                          NGHTTP2_NO_ERROR, NULL, 0)
                  : nghttp2.submit_shutdown_notice(session);
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

static PyObject *get_crowded(PyObject *object, void *closure) {
  (void)closure;
  return PyBool_FromLong(is_crowded((Session *)object));
}

static PyObject *get_alive(PyObject *object, void *closure) {
  (void)closure;
  nghttp2_session *session = ((Session *)object)->session;
  if (session == NULL) Py_RETURN_FALSE;
  return PyBool_FromLong(nghttp2.session_want_read(session) || nghttp2.session_want_write(session));
}

static PyMethodDef methods[] = {
  {"receive", receive, METH_O, NULL},     {"events", events, METH_NOARGS, NULL},
  {"send", send, METH_O, NULL},
  {"message", message, METH_VARARGS, NULL}, {"queued", queued, METH_O, NULL},
  {"reply", reply, METH_VARARGS, NULL},   {"finish", finish, METH_VARARGS, NULL},
  {"took", took, METH_VARARGS, NULL},     {"reset", reset, METH_VARARGS, NULL},
  {"go_away", go_away, METH_O, NULL},     {"close", close_session, METH_NOARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
  {"alive", get_alive, NULL, NULL, NULL},
  {"crowded", get_crowded, NULL, NULL, NULL},
  {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_new, new_session},  {Py_tp_dealloc, free_session}, {Py_tp_methods, methods},
  {Py_tp_getset, attributes}, {0, NULL},
};

PyType_Spec session_type = {"device_api_transport_h2._engine.Session", sizeof(Session), 0,
                            Py_TPFLAGS_DEFAULT, slots};
