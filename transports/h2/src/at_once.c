/* Answers that are known already: they are given without a call in Python, to whom may have them. */
#include <string.h>
#include <time.h>

#include "engine.h"

PyTypeObject *answers_class, *account_class;

double monotonic_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool is(PyObject *bytes, const char *expected) {
  return strcmp(PyBytes_AsString(bytes), expected) == 0;
}

/* Everything but the most usual request is left to those who look closer. */
static bool is_plain(const Stream *stream) {
  return stream->path != NULL && stream->method != NULL && stream->content_type != NULL &&
         is(stream->method, "POST") &&
         (is(stream->content_type, "application/grpc") ||
          is(stream->content_type, "application/grpc+proto")) &&
         (stream->encoding == NULL || is(stream->encoding, "identity")) &&
         (stream->timeout == NULL || PyFloat_AsDouble(stream->timeout) > 0);
}

/* The known answer. NULL if there is none, or with an exception. */
static PyObject *find_answer(const Session *self, const Stream *stream, PyObject *message,
                             Answers **method) {
  *method = (Answers *)PyDict_GetItemWithError(self->answers, stream->path);
  if (*method == NULL || !PyObject_TypeCheck((PyObject *)*method, answers_class)) return NULL;
  PyObject *answer = PyDict_GetItemWithError((*method)->known, message);
  return answer != NULL && PyBytes_Check(answer) ? answer : NULL;
}

/* Returns 1 if the request was answered, 0 if that is for others to do, -1 if it failed. */
int answer_at_once(Session *self, Stream *stream, PyObject *message) {
  Account *account = self->account;
  if (account == NULL || account->credit <= 0 || !is_plain(stream)) return 0;
  /* What came before it is still to be done. */
  if (PyList_Size(self->events) > 0 || call_is_crowded(self)) return 0;
  double began = monotonic_seconds();
  if (began >= account->credit_until) return 0;
  Answers *method;
  PyObject *answer = find_answer(self, stream, message, &method);
  if (answer == NULL) return PyErr_Occurred() ? -1 : 0;
  if (call_answer(self, stream, answer) != 0) return -1;
  account->credit--;
  method->given++;
  method->seconds += monotonic_seconds() - began;
  return 1;
}

/* --- their types, described in _engine.pyi */

static PyObject *new_answers(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  PyObject *known;
  if (keywords != NULL && PyDict_Size(keywords) > 0) {
    PyErr_SetString(PyExc_TypeError, "no keywords");
    return NULL;
  }
  if (!PyArg_ParseTuple(args, "O!", &PyDict_Type, &known)) return NULL;
  allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Answers *self = (Answers *)allocate(type, 0);
  if (self != NULL) self->known = Py_NewRef(known);
  return (PyObject *)self;
}

static void release(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static void free_answers(PyObject *object) {
  Py_XDECREF(((Answers *)object)->known);
  release(object);
}

/* How many were given since it was last asked, and the seconds that took. */
static PyObject *take_given(PyObject *object, PyObject *unused) {
  (void)unused;
  Answers *self = (Answers *)object;
  PyObject *taken = Py_BuildValue("ld", self->given, self->seconds);
  if (taken == NULL) return NULL;
  self->given = 0;
  self->seconds = 0;
  return taken;
}

static PyMethodDef answers_methods[] = {
  {"take", take_given, METH_NOARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyType_Slot answers_slots[] = {
  {Py_tp_new, new_answers},
  {Py_tp_dealloc, free_answers},
  {Py_tp_methods, answers_methods},
  {0, NULL},
};

PyType_Spec answers_type = {"device_api_transport_h2._engine.Answers", sizeof(Answers), 0,
                            Py_TPFLAGS_DEFAULT, answers_slots};

/* The seconds that were worked for it since it was last asked. */
static PyObject *take_used(PyObject *object, PyObject *unused) {
  (void)unused;
  Account *self = (Account *)object;
  double used = self->used;
  self->used = 0;
  self->told = false;
  return PyFloat_FromDouble(used);
}

static PyMethodDef account_methods[] = {
  {"take", take_used, METH_NOARGS, NULL},
  {NULL, NULL, 0, NULL},
};

static PyMemberDef account_members[] = {
  {"credit", T_LONG, offsetof(Account, credit), 0, NULL},
  {"credit_until", T_DOUBLE, offsetof(Account, credit_until), 0, NULL},
  {"rests_until", T_DOUBLE, offsetof(Account, rests_until), 0, NULL},
  {NULL, 0, 0, 0, NULL},
};

static PyType_Slot account_slots[] = {
  {Py_tp_dealloc, release},
  {Py_tp_methods, account_methods},
  {Py_tp_members, account_members},
  {0, NULL},
};

PyType_Spec account_type = {"device_api_transport_h2._engine.Account", sizeof(Account), 0,
                            Py_TPFLAGS_DEFAULT, account_slots};
