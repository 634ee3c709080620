#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* More than one turn of the event loop sends, but for a frame that is larger by itself. */
enum { SEND_ROOM = 96 * 1024 };

PyTypeObject *session_class;

PyObject *session_failed(int code) {
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
  Py_XDECREF(self->answers);
  Py_XDECREF((PyObject *)self->account);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

/* The events so far; the session begins a new list. */
PyObject *session_take_events(Session *self) {
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

/* What the peer's bytes mean. */
PyObject *session_receive(Session *self, const uint8_t *data, size_t size) {
  if (!begin_work(self)) return NULL;
  self->busy = true;
  ssize_t taken = nghttp2.session_mem_recv(self->session, data, size);
  self->busy = false;
  if (taken < 0) return session_failed((int)taken);
  return session_take_events(self);
}

static PyObject *receive(PyObject *object, PyObject *data) {
  Session *self = (Session *)object;
  Py_buffer view;
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
  PyObject *events = session_receive(self, view.buf, (size_t)view.len);
  PyBuffer_Release(&view);
  return events;
}

static PyObject *events(PyObject *object, PyObject *unused) {
  (void)unused;
  return session_take_events((Session *)object);
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

/* Frames are collected up to about `limit` bytes, one system call's worth. Returns how many there
 * are, which are to be used before anything else happens, or -1. */
ssize_t session_put_together(Session *self, size_t limit, const uint8_t **bytes) {
  size_t total = 0;
  if (!begin_work(self)) return -1;
  struct Room room = spare;
  spare = (struct Room){NULL, 0};
  ssize_t result = -1;
  while (total < limit && !self->broken) {
    const uint8_t *frame;
    self->busy = true;
    ssize_t size = nghttp2.session_mem_send(self->session, &frame);
    self->busy = false;
    if (size == 0) break;
    if (size < 0 || !make_room(&room, total + (size_t)size)) {
      /* What follows would not fit to what was lost. */
      self->broken = true;
      if (size < 0) session_failed((int)size);
      else PyErr_NoMemory();
      goto done;
    }
    memcpy(room.bytes + total, frame, (size_t)size);
    total += (size_t)size;
  }
  result = (ssize_t)total;
done:
  free(spare.bytes);
  spare = room;
  *bytes = room.bytes;
  return result;
}

static PyObject *send(PyObject *object, PyObject *argument) {
  Session *self = (Session *)object;
  const uint8_t *bytes;
  Py_ssize_t limit = PyLong_AsSsize_t(argument);
  if (limit == -1 && PyErr_Occurred()) return NULL;
  ssize_t size = session_put_together(self, limit < 0 ? 0 : (size_t)limit, &bytes);
  if (size < 0) return NULL;
  PyObject *sent = PyBytes_FromStringAndSize((const char *)bytes, size);
  if (sent == NULL) self->broken = true;
  return sent;
}

/* Who asks, and what may be answered without a call in Python. */
static PyObject *serve(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  PyObject *answers, *account;
  if (!PyArg_ParseTuple(args, "O!O!", &PyDict_Type, &answers, account_class, &account)) return NULL;
  PyObject *former[] = {self->answers, (PyObject *)self->account};
  self->answers = Py_NewRef(answers);
  self->account = (Account *)Py_NewRef(account);
  Py_XDECREF(former[0]);
  Py_XDECREF(former[1]);
  Py_RETURN_NONE;
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
  return code != 0 ? session_failed(code) : Py_NewRef(Py_None);
}

static PyObject *get_crowded(PyObject *object, void *closure) {
  (void)closure;
  return PyBool_FromLong(call_is_crowded((Session *)object));
}

bool session_is_alive(const Session *self) {
  return self->session != NULL && (nghttp2.session_want_read(self->session) ||
                                   nghttp2.session_want_write(self->session));
}

static PyObject *get_calmed(PyObject *object, void *closure) {
  (void)closure;
  return PyBool_FromLong(((Session *)object)->calmed);
}

static PyObject *get_alive(PyObject *object, void *closure) {
  (void)closure;
  return PyBool_FromLong(session_is_alive((Session *)object));
}

static PyMethodDef methods[] = {
  {"receive", receive, METH_O, NULL},
  {"events", events, METH_NOARGS, NULL},
  {"send", send, METH_O, NULL},
  {"message", call_message, METH_VARARGS, NULL},
  {"queued", call_queued, METH_O, NULL},
  {"reply", call_reply, METH_VARARGS, NULL},
  {"finish", call_finish, METH_VARARGS, NULL},
  {"took", call_took, METH_VARARGS, NULL},
  {"reset", call_reset, METH_VARARGS, NULL},
  {"go_away", go_away, METH_O, NULL},
  {"serve", serve, METH_VARARGS, NULL},
  {"close", close_session, METH_NOARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
  {"alive", get_alive, NULL, NULL, NULL},
  {"calmed", get_calmed, NULL, NULL, NULL},
  {"crowded", get_crowded, NULL, NULL, NULL},
  {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_new, new_session},  {Py_tp_dealloc, free_session}, {Py_tp_methods, methods},
  {Py_tp_getset, attributes}, {0, NULL},
};

PyType_Spec session_type = {"device_api_transport_h2._engine.Session", sizeof(Session), 0,
                            Py_TPFLAGS_DEFAULT, slots};
