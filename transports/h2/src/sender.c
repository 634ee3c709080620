/* What says the same to many calls: an event is put into each without a call in Python. */
#include "engine.h"

typedef struct {
  PyObject_HEAD
  Wire *wire;
  int stream;
  size_t ahead;
} Sender;

PyTypeObject *sender_class;

/* Wire.sender(stream, ahead) */
PyObject *sender_new(PyObject *wire, PyObject *args) {
  int stream;
  Py_ssize_t ahead;
  if (!PyArg_ParseTuple(args, "in", &stream, &ahead)) return NULL;
  allocfunc allocate = (allocfunc)PyType_GetSlot(sender_class, Py_tp_alloc);
  Sender *self = (Sender *)allocate(sender_class, 0);
  if (self == NULL) return NULL;
  self->wire = (Wire *)Py_NewRef(wire);
  self->stream = stream;
  self->ahead = ahead < 0 ? 0 : (size_t)ahead;
  return (PyObject *)self;
}

static void free_sender(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  Py_DECREF((PyObject *)((Sender *)object)->wire);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

/* Whoever speaks to many must not fail for one, so that this raises nothing: a wire that cannot go on
 * fails, which its owner is told. */
static PyObject *say(PyObject *object, PyObject *message) {
  Sender *self = (Sender *)object;
  Wire *wire = self->wire;
  if (wire->fd < 0 || wire->failed || wire->session->busy || !PyBytes_Check(message))
    Py_RETURN_FALSE;
  Stream *stream = call_find(wire->session, self->stream);
  if (stream == NULL || stream->finished || stream->queued >= self->ahead) Py_RETURN_FALSE;
  if (call_say(wire->session, stream, message) != 0) {
    PyErr_Clear();
    wire_fail(wire);
    Py_RETURN_FALSE;
  }
  sockets_due(wire->sockets, wire);
  Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
  {"say", say, METH_O, NULL},
  {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_dealloc, free_sender},
  {Py_tp_methods, methods},
  {0, NULL},
};

PyType_Spec sender_type = {"device_api_transport_h2._engine.Sender", sizeof(Sender), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
