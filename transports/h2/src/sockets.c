/* All sockets of one event loop: who is ready is read, answered as far as answers are known, and
 * told of. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine.h"

enum {
  /* At once. */
  WIRES = 64,
  /* Of one wire at once, so that a client that sends without a pause takes turns with the others. */
  READ_BYTES = 4096,
};

/* After so long a time of work its owner is told, although there is nothing else to tell. */
static const double ACCOUNTED_SECONDS = 0.0005;

/* Of one look, beyond which it does not look again: others have the loop, too. */
static const double LOOK_SECONDS = 0.0002;

/* Owners are told together when all was read, since what they do may change anything. Whoever
 * cannot be told is given up. */
static void tell(PyObject *notices, Wire *wire, int what, PyObject *value) {
  PyObject *notice = value == NULL ? NULL : Py_BuildValue("(OiN)", wire->owner, what, value);
  if (notice == NULL || PyList_Append(notices, notice) < 0) {
    PyErr_Clear();
    wire_fail(wire);
  }
  Py_XDECREF(notice);
}

static PyObject *nothing(void) { return Py_NewRef(Py_None); }

/* The session cannot go on: its owner has the last word. */
static void tell_broken(PyObject *notices, Wire *wire) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  tell(notices, wire, BROKEN, value != NULL ? value : nothing());
}

static PyObject *receive(Wire *wire, PyObject *notices) {
  uint8_t bytes[READ_BYTES];
  ssize_t size = recv(wire->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return NULL;
  if (size <= 0) {
    tell(notices, wire, GONE, nothing());
    return NULL;
  }
  wire->heard = true;
  PyObject *events = session_receive(wire->session, bytes, (size_t)size);
  if (events == NULL) tell_broken(notices, wire);
  return events;
}

/* What was heard is answered at once where nobody has to be asked. */
static PyObject *respond(Wire *wire, PyObject *notices, PyObject *events) {
  if (PyList_Size(events) > 0) return events;
  Py_DECREF(events);
  if (wire_flush(wire) < 0 || (events = session_take_events(wire->session)) == NULL) {
    tell_broken(notices, wire);
    return NULL;
  }
  return events;
}

/* One owner of several is enough. */
static bool to_be_settled(Account *account) {
  if (account == NULL || account->told || account->used < ACCOUNTED_SECONDS) return false;
  account->told = true;
  return true;
}

static void hear(Wire *wire, PyObject *notices, double began) {
  Account *account = wire->session->account;
  bool blocked = wire->blocked;
  PyObject *events = receive(wire, notices);
  if (events != NULL) events = respond(wire, notices, events);
  if (account != NULL) account->used += monotonic_seconds() - began;
  if (events == NULL) return;
  if (PyList_Size(events) > 0 || wire->hungry || wire->blocked != blocked ||
      !session_is_alive(wire->session) || to_be_settled(account))
    tell(notices, wire, HEARD, events);
  else Py_DECREF(events);
}

static void serve(Wire *wire, uint32_t ready, PyObject *notices) {
  Account *account = wire->session->account;
  if (wire->failed) {
    tell(notices, wire, GONE, nothing());
    return;
  }
  if (wire->blocked && ready & ~(uint32_t)EPOLLIN) {
    if (wire_flush(wire) < 0) {
      tell_broken(notices, wire);
      return;
    }
    if (!wire->blocked) tell(notices, wire, FLOWS, nothing());
  }
  if (!wire->reads || !(ready & ~(uint32_t)EPOLLOUT)) return;
  double now = monotonic_seconds();
  if (account != NULL && account->rests_until > now) tell(notices, wire, RESTS, nothing());
  else hear(wire, notices, now);
}

/* Something was said on the wire, to be sent at the end of the loop's turn. */
void sockets_due(Sockets *self, Wire *wire) {
  if (wire->due) return;
  bool first = self->first_due == NULL;
  wire->due = true;
  wire->next_due = NULL;
  if (first) self->first_due = wire;
  else self->last_due->next_due = wire;
  self->last_due = wire;
  Py_INCREF((PyObject *)wire);
  if (!first) return;
  PyObject *done = PyObject_CallNoArgs(self->on_due);
  if (done == NULL) PyErr_WriteUnraisable(self->on_due);
  Py_XDECREF(done);
}

static Wire *take_due(Sockets *self) {
  Wire *wire = self->first_due;
  if (wire == NULL) return NULL;
  self->first_due = wire->next_due;
  wire->due = false;
  return wire;
}

static void send_due(Wire *wire, PyObject *notices) {
  bool blocked = wire->blocked;
  PyObject *events = NULL;
  if (wire_flush(wire) < 0 || (events = session_take_events(wire->session)) == NULL) {
    tell_broken(notices, wire);
    return;
  }
  if (PyList_Size(events) > 0 || wire->hungry || wire->blocked != blocked ||
      !session_is_alive(wire->session))
    tell(notices, wire, HEARD, events);
  else Py_DECREF(events);
}

/* --- its type, described in _engine.pyi */

static PyObject *flush(PyObject *object, PyObject *unused) {
  (void)unused;
  PyObject *notices = PyList_New(0);
  Wire *wire;
  while (notices != NULL && (wire = take_due((Sockets *)object)) != NULL) {
    if (wire->fd >= 0) send_due(wire, notices);
    Py_DECREF((PyObject *)wire);
  }
  return notices;
}

/* Returns how many were ready. */
static int serve_ready(Sockets *self, PyObject *notices) {
  struct epoll_event ready[WIRES];
  int count = epoll_wait(self->epoll, ready, WIRES, 0);
  /* The collection of garbage may run anything meanwhile, which may close a wire. */
  for (int i = 0; i < count; i++) Py_INCREF((PyObject *)ready[i].data.ptr);
  for (int i = 0; i < count; i++) {
    Wire *wire = ready[i].data.ptr;
    if (wire->fd >= 0) serve(wire, ready[i].events, notices);
    Py_DECREF((PyObject *)wire);
  }
  return count;
}

/* Looks again as long as nobody has to be told anything: clients answer each other's words one by one,
 * and a turn of the event loop costs more than to serve several. */
static PyObject *look(PyObject *object, PyObject *unused) {
  (void)unused;
  PyObject *notices = PyList_New(0);
  if (notices == NULL) return NULL;
  double ends = monotonic_seconds() + LOOK_SECONDS;
  int served;
  do served = serve_ready((Sockets *)object, notices);
  while (served > 0 && PyList_Size(notices) == 0 && monotonic_seconds() < ends);
  return notices;
}

static PyObject *add(PyObject *object, PyObject *args) {
  int fd;
  PyObject *session, *owner;
  if (!PyArg_ParseTuple(args, "iO!O", &fd, session_class, &session, &owner)) return NULL;
  return wire_new((Sockets *)object, fd, (Session *)session, owner);
}

static PyObject *file_number(PyObject *object, PyObject *unused) {
  (void)unused;
  return PyLong_FromLong(((Sockets *)object)->epoll);
}

static PyObject *new_sockets(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  (void)keywords;
  PyObject *on_due;
  if (!PyArg_ParseTuple(args, "O", &on_due)) return NULL;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return PyErr_SetFromErrno(PyExc_OSError);
  allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Sockets *self = (Sockets *)allocate(type, 0);
  if (self == NULL) {
    close(epoll);
    return NULL;
  }
  self->epoll = epoll;
  self->on_due = Py_NewRef(on_due);
  return (PyObject *)self;
}

static void free_sockets(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  Sockets *self = (Sockets *)object;
  close(self->epoll);
  Py_XDECREF(self->on_due);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static PyMethodDef methods[] = {
  {"add", add, METH_VARARGS, NULL},
  {"flush", flush, METH_NOARGS, NULL},
  {"fileno", file_number, METH_NOARGS, NULL},
  {"look", look, METH_NOARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
  {Py_tp_new, new_sockets},
  {Py_tp_dealloc, free_sockets},
  {Py_tp_methods, methods},
  {0, NULL},
};

PyType_Spec sockets_type = {"device_api_transport_h2._engine.Sockets", sizeof(Sockets), 0,
                            Py_TPFLAGS_DEFAULT, slots};
