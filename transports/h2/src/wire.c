/* The socket of one session. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "engine.h"

/* One system call's worth. */
enum { WRITE_BYTES = 64 * 1024 };

PyTypeObject *wire_class;

/* Tells epoll what is waited for now. Returns 0, or -1 with errno. */
int wire_watch(Wire *self) {
  uint32_t wanted = 0;
  if (self->fd >= 0 && (self->reads || self->failed)) wanted |= EPOLLIN;
  if (self->fd >= 0 && (self->blocked || self->failed)) wanted |= EPOLLOUT;
  if (wanted == self->interest) return 0;
  int operation = self->interest == 0 ? EPOLL_CTL_ADD : wanted == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  struct epoll_event event = {.events = wanted, .data = {.ptr = self}};
  if (epoll_ctl(self->sockets->epoll, operation, self->fd, &event) < 0) return -1;
  self->interest = wanted;
  return 0;
}

/* Its owner is told so when the sockets are looked at next, since such a socket is always ready. */
void wire_fail(Wire *self) {
  self->failed = true;
  wire_watch(self);
}

static void forget_rest(Wire *self) {
  free(self->rest);
  self->rest = NULL;
  self->rest_size = self->rest_sent = 0;
}

/* Bytes that the socket has taken, -1 if it is broken. */
static ssize_t put(Wire *self, const uint8_t *bytes, size_t size) {
  ssize_t taken;
  do taken = send(self->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (taken < 0 && errno == EINTR);
  if (taken >= 0) return taken;
  if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
  wire_fail(self);
  return -1;
}

static bool put_rest(Wire *self) {
  size_t size = self->rest_size - self->rest_sent;
  ssize_t taken = put(self, self->rest + self->rest_sent, size);
  if (taken < 0) return false;
  self->rest_sent += (size_t)taken;
  if ((size_t)taken < size) return false;
  forget_rest(self);
  return true;
}

static int keep_rest(Wire *self, const uint8_t *bytes, size_t size) {
  self->rest = malloc(size);
  if (self->rest == NULL) {
    /* What follows would not fit to what was lost. */
    self->session->broken = true;
    PyErr_NoMemory();
    return -1;
  }
  memcpy(self->rest, bytes, size);
  self->rest_size = size;
  self->rest_sent = 0;
  return 0;
}

/* Sends what the session has to say, as far as the socket takes it. Returns how many bytes of it are
 * new, or -1 with an exception if the session cannot go on. A broken socket is no exception. */
ssize_t wire_flush(Wire *self) {
  ssize_t total = 0;
  if (self->fd < 0 || self->failed) return 0;
  if (self->rest != NULL && !put_rest(self)) goto done;
  for (;;) {
    const uint8_t *bytes;
    ssize_t size = session_put_together(self->session, WRITE_BYTES, &bytes);
    if (size < 0) return -1;
    if (size == 0) break;
    total += size;
    ssize_t taken = put(self, bytes, (size_t)size);
    if (taken < 0) break;
    if (taken < size) {
      if (keep_rest(self, bytes + taken, (size_t)(size - taken)) < 0) return -1;
      break;
    }
    if (size < WRITE_BYTES) break;
  }
done:
  self->blocked = self->rest != NULL;
  if (wire_watch(self) < 0) wire_fail(self);
  return total;
}

PyObject *wire_new(Sockets *sockets, int fd, Session *session, PyObject *owner) {
  allocfunc allocate = (allocfunc)PyType_GetSlot(wire_class, Py_tp_alloc);
  Wire *self = (Wire *)allocate(wire_class, 0);
  if (self == NULL) return NULL;
  self->sockets = (Sockets *)Py_NewRef((PyObject *)sockets);
  self->session = (Session *)Py_NewRef((PyObject *)session);
  self->owner = Py_NewRef(owner);
  self->fd = fd;
  self->reads = true;
  if (wire_watch(self) == 0) return (PyObject *)self;
  PyErr_SetFromErrno(PyExc_OSError);
  Py_DECREF(self);
  return NULL;
}

/* --- its type, described in _engine.pyi */

static void let_go(Wire *self) {
  PyObject *owner = self->owner;
  self->owner = NULL;
  self->reads = self->blocked = self->failed = false;
  if (self->fd >= 0) wire_watch(self);
  self->fd = -1;
  forget_rest(self);
  Py_XDECREF(owner);
}

static void free_wire(PyObject *object) {
  Wire *self = (Wire *)object;
  PyTypeObject *type = Py_TYPE(object);
  let_go(self);
  Py_XDECREF((PyObject *)self->sockets);
  Py_XDECREF((PyObject *)self->session);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static PyObject *flush(PyObject *object, PyObject *unused) {
  (void)unused;
  ssize_t sent = wire_flush((Wire *)object);
  return sent < 0 ? NULL : PyLong_FromSsize_t(sent);
}

static PyObject *read_on(PyObject *object, PyObject *argument) {
  Wire *self = (Wire *)object;
  int reads = PyObject_IsTrue(argument);
  if (reads < 0) return NULL;
  self->reads = reads;
  if (wire_watch(self) < 0) wire_fail(self);
  Py_RETURN_NONE;
}

static PyObject *close_wire(PyObject *object, PyObject *unused) {
  (void)unused;
  let_go((Wire *)object);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
  {"flush", flush, METH_NOARGS, NULL},
  {"read", read_on, METH_O, NULL},
  {"close", close_wire, METH_NOARGS, NULL},
  {"sender", sender_new, METH_VARARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
  {"heard", T_BOOL, offsetof(Wire, heard), READONLY, NULL},
  {"blocked", T_BOOL, offsetof(Wire, blocked), READONLY, NULL},
  {"hungry", T_BOOL, offsetof(Wire, hungry), 0, NULL},
  {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_dealloc, free_wire},
  {Py_tp_methods, methods},
  {Py_tp_members, members},
  {0, NULL},
};

PyType_Spec wire_type = {"device_api_transport_h2._engine.Wire", sizeof(Wire), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
