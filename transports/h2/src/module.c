#include "engine.h"

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

static void free_session(PyObject *object) {
  Session *self = (Session *)object;
  PyTypeObject *type = Py_TYPE(object);
  if (self->session != NULL) nghttp2.session_del(self->session);
  while (self->streams != NULL) stream_free(self, self->streams);
  Py_XDECREF(self->events);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

/* The events so far; the session begins a new list. */
static PyObject *take_events(Session *self) {
  PyObject *events = self->events, *fresh = PyList_New(0);
  if (fresh == NULL) return NULL;
  self->events = fresh;
  return events;
}

static PyObject *receive(PyObject *object, PyObject *data) {
  Session *self = (Session *)object;
  Py_buffer view;
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
  ssize_t taken = nghttp2.session_mem_recv(self->session, view.buf, (size_t)view.len);
  PyBuffer_Release(&view);
  if (taken < 0) return failed((int)taken);
  return take_events(self);
}

static PyObject *events(PyObject *object, PyObject *unused) {
  (void)unused;
  return take_events((Session *)object);
}

/* Frames are collected up to about `limit` bytes, one system call's worth. */
static PyObject *send(PyObject *object, PyObject *argument) {
  Session *self = (Session *)object;
  Py_ssize_t limit = PyLong_AsSsize_t(argument), total = 0;
  if (limit < 0) return PyErr_Occurred() ? NULL : failed(-501);
  PyObject *parts = NULL, *single = NULL;
  while (total < limit) {
    const uint8_t *frame;
    ssize_t size = nghttp2.session_mem_send(self->session, &frame);
    if (size < 0) {
      Py_XDECREF(parts), Py_XDECREF(single);
      return failed((int)size);
    }
    if (size == 0) break;
    PyObject *part = PyBytes_FromStringAndSize((const char *)frame, size);
    if (part == NULL) goto error;
    total += size;
    if (single == NULL) {
      single = part;
      continue;
    }
    if (parts == NULL && ((parts = PyList_New(0)) == NULL || PyList_Append(parts, single) < 0)) {
      Py_DECREF(part);
      goto error;
    }
    int appended = PyList_Append(parts, part);
    Py_DECREF(part);
    if (appended < 0) goto error;
  }
  if (single == NULL) return PyBytes_FromStringAndSize(NULL, 0);
  if (parts == NULL) return single;
  Py_DECREF(single);
  PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
  PyObject *joined = empty ? PyObject_CallMethod(empty, "join", "O", parts) : NULL;
  Py_XDECREF(empty);
  Py_DECREF(parts);
  return joined;
error:
  Py_XDECREF(parts), Py_XDECREF(single);
  return NULL;
}

static Stream *find(Session *self, int id) {
  return nghttp2.session_get_stream_user_data(self->session, id);
}

static int resume(Session *self, Stream *stream) {
  if (!stream->deferred) return 0;
  stream->deferred = false;
  return nghttp2.session_resume_data(self->session, stream->id);
}

/* Queues a message; returns the bytes that wait on the stream now, or -1 if it is gone. */
static PyObject *message(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code;
  PyObject *bytes;
  if (!PyArg_ParseTuple(args, "iS", &id, &bytes)) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->finished) return PyLong_FromLong(-1);
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
  if (self->unread > self->max_unread || (self->unread > 0 && all_unread > MAX_ALL_BYTES))
    Py_RETURN_FALSE;
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
  Stream *stream = find(self, id);
  if (stream == NULL || stream->finished) Py_RETURN_NONE;
  stream->ignored = true;
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

/* The call has taken `count` messages, so that the peer may send more. */
static PyObject *took(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id;
  Py_ssize_t bytes;
  if (!PyArg_ParseTuple(args, "in", &id, &bytes)) return NULL;
  Stream *stream = find(self, id);
  if (stream == NULL || stream->unread == 0) Py_RETURN_NONE;
  stream_took(self, stream, (size_t)bytes);
  if (stream->withheld == 0 || stream->unread > READ_AHEAD) Py_RETURN_NONE;
  int code = nghttp2.session_consume_stream(self->session, id, stream->withheld);
  stream->withheld = 0;
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

static PyObject *reset(PyObject *object, PyObject *args) {
  int id;
  unsigned int error;
  if (!PyArg_ParseTuple(args, "iI", &id, &error)) return NULL;
  int code = nghttp2.submit_rst_stream(((Session *)object)->session, 0, id, error);
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

/* No new calls: first a warning that costs nobody a call, then, with `last`, the final word. */
static PyObject *go_away(PyObject *object, PyObject *argument) {
  nghttp2_session *session = ((Session *)object)->session;
  int last = PyObject_IsTrue(argument);
  if (last < 0) return NULL;
  int code = last ? nghttp2.submit_goaway(session, 0,
                                          nghttp2.session_get_last_proc_stream_id(session),
                                          NGHTTP2_NO_ERROR, NULL, 0)
                  : nghttp2.submit_shutdown_notice(session);
  return code != 0 ? failed(code) : Py_NewRef(Py_None);
}

static PyObject *get_alive(PyObject *object, void *closure) {
  (void)closure;
  nghttp2_session *session = ((Session *)object)->session;
  return PyBool_FromLong(nghttp2.session_want_read(session) || nghttp2.session_want_write(session));
}

static PyMethodDef methods[] = {
  {"receive", receive, METH_O, NULL},     {"events", events, METH_NOARGS, NULL},
  {"send", send, METH_O, NULL},
  {"message", message, METH_VARARGS, NULL}, {"queued", queued, METH_O, NULL},
  {"reply", reply, METH_VARARGS, NULL},   {"finish", finish, METH_VARARGS, NULL},
  {"took", took, METH_VARARGS, NULL},     {"reset", reset, METH_VARARGS, NULL},
  {"go_away", go_away, METH_O, NULL},     {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
  {"alive", get_alive, NULL, NULL, NULL},
  {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_new, new_session},  {Py_tp_dealloc, free_session}, {Py_tp_methods, methods},
  {Py_tp_getset, attributes}, {0, NULL},
};

static PyType_Spec spec = {"device_api_transport_h2._engine.Session", sizeof(Session), 0,
                           Py_TPFLAGS_DEFAULT, slots};

static int execute(PyObject *module) {
  const char *problem = load_nghttp2();
  if (problem != NULL) {
    PyErr_Format(PyExc_ImportError, "libnghttp2 cannot be used: %s", problem);
    return -1;
  }
  PyObject *type = PyType_FromSpec(&spec);
  if (type == NULL || PyModule_AddObjectRef(module, "Session", type) < 0) return -1;
  Py_DECREF(type);
  static const struct {
    const char *name;
    int value;
  } kinds[] = {
    {"OPENED", OPENED}, {"MESSAGE", MESSAGE}, {"ENDED", ENDED}, {"REFUSED", REFUSED}, {"CLOSED", CLOSED},
  };
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (PyModule_AddIntConstant(module, kinds[i].name, kinds[i].value) < 0) return -1;
  return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_engine", NULL, 0, NULL,
                                        module_slots,          NULL,      NULL, NULL};

PyMODINIT_FUNC PyInit__engine(void) { return PyModuleDef_Init(&definition); }
