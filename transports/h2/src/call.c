/* What the server says to one call, which is named by its stream. */
#include "engine.h"

Stream *call_find(Session *self, int id) {
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

bool call_is_crowded(const Session *self) {
  return self->unread > self->max_unread ||
         (all_unread > MAX_ALL_BYTES && self->unread > FAIR_BYTES);
}

/* Queues a message. Returns 0, -1 with an exception, or the code with which nghttp2 failed. */
int call_say(Session *self, Stream *stream, PyObject *message) {
  if (!fits(message) || stream_queue(self, stream, message) < 0) return -1;
  return stream->answered ? resume(self, stream) : answer_begin(self, stream, NULL, NULL);
}

/* Queues a message; returns the bytes that wait on the stream now, or -1 if it is gone. */
PyObject *call_message(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code;
  PyObject *bytes;
  if (!PyArg_ParseTuple(args, "iS", &id, &bytes)) return NULL;
  Stream *stream = call_find(self, id);
  if (stream == NULL || stream->finished) return PyLong_FromLong(-1);
  if ((code = call_say(self, stream, bytes)) != 0) return session_failed(code);
  return PyLong_FromSize_t(stream->queued);
}

PyObject *call_queued(PyObject *object, PyObject *argument) {
  Stream *stream = call_find((Session *)object, (int)PyLong_AsLong(argument));
  if (PyErr_Occurred()) return NULL;
  return stream == NULL ? PyLong_FromLong(-1) : PyLong_FromSize_t(stream->queued);
}

/* A whole answer: one message and status 0. Its end is not told. Returns 0, -1 with an exception, or
 * the code with which nghttp2 failed. */
int call_answer(Session *self, Stream *stream, PyObject *message) {
  if (stream_queue(self, stream, message) < 0) return -1;
  stream->finished = stream->quiet = true;
  return answer_begin(self, stream, NULL, NULL);
}

/* False if the client has too many answers to read already. */
PyObject *call_reply(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id, code;
  PyObject *bytes;
  if (!PyArg_ParseTuple(args, "iS", &id, &bytes)) return NULL;
  Stream *stream = call_find(self, id);
  if (stream == NULL || stream->answered) Py_RETURN_TRUE;
  if (!fits(bytes)) return NULL;
  if (call_is_crowded(self)) Py_RETURN_FALSE;
  if ((code = call_answer(self, stream, bytes)) != 0) return session_failed(code);
  Py_RETURN_TRUE;
}

/* Ends the answer. Queued messages are sent before, unless `drop` says that they do not matter. */
PyObject *call_finish(PyObject *object, PyObject *args) {
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
  Stream *stream = call_find(self, id);
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
  return code != 0 ? session_failed(code) : Py_NewRef(Py_None);
}

/* The call has taken a message of so many bytes: the peer may send more. */
PyObject *call_took(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id;
  Py_ssize_t bytes;
  if (!PyArg_ParseTuple(args, "in", &id, &bytes)) return NULL;
  Stream *stream = call_find(self, id);
  if (stream == NULL || stream->unread == 0) Py_RETURN_NONE;
  if (bytes < 0 || (size_t)bytes > stream->unread_bytes) {
    PyErr_SetString(PyExc_ValueError, "no message of that size waits to be taken");
    return NULL;
  }
  stream_took(self, stream, (size_t)bytes);
  if (stream->withheld == 0 || stream->unread > READ_AHEAD) Py_RETURN_NONE;
  int code = nghttp2.session_consume_stream(self->session, id, stream->withheld);
  stream->withheld = 0;
  return code != 0 ? session_failed(code) : Py_NewRef(Py_None);
}

PyObject *call_reset(PyObject *object, PyObject *args) {
  Session *self = (Session *)object;
  int id;
  unsigned int error;
  if (!PyArg_ParseTuple(args, "iI", &id, &error)) return NULL;
  if (call_find(self, id) == NULL) Py_RETURN_NONE;
  int code = nghttp2.submit_rst_stream(self->session, 0, id, error);
  return code != 0 ? session_failed(code) : Py_NewRef(Py_None);
}
