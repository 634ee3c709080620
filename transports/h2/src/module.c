#include "engine.h"

/* What the calls of all sessions hold. */
static PyObject *held(PyObject *module, PyObject *unused) {
  (void)module, (void)unused;
  return Py_BuildValue("nnn", (Py_ssize_t)all_calls, (Py_ssize_t)all_buffered,
                       (Py_ssize_t)all_unread);
}

static PyMethodDef functions[] = {{"held", held, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static int execute(PyObject *module) {
  const char *problem = load_nghttp2();
  if (problem != NULL) {
    PyErr_Format(PyExc_ImportError, "libnghttp2 cannot be used: %s", problem);
    return -1;
  }
  const struct {
    const char *name;
    PyType_Spec *type;
    PyTypeObject **made;
  } types[] = {
    {"Session", &session_type, &session_class}, {"Answers", &answers_type, &answers_class},
    {"Account", &account_type, &account_class}, {"Sockets", &sockets_type, NULL},
    {"Wire", &wire_type, &wire_class},       {"Sender", &sender_type, &sender_class},
  };
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    PyObject *type = PyType_FromSpec(types[i].type);
    int added = PyModule_AddObjectRef(module, types[i].name, type);
    if (added < 0 || types[i].made == NULL) Py_XDECREF(type);
    else *types[i].made = (PyTypeObject *)type; /* for as long as the process lives */
    if (added < 0) return -1;
  }
  static const struct {
    const char *name;
    int value;
  } kinds[] = {
    {"OPENED", OPENED},   {"MESSAGE", MESSAGE}, {"ENDED", ENDED},
    {"REFUSED", REFUSED}, {"CLOSED", CLOSED},   {"REQUEST", REQUEST},
    {"HEARD", HEARD},     {"FLOWS", FLOWS},     {"RESTS", RESTS},
    {"BROKEN", BROKEN},   {"GONE", GONE},
  };
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (PyModule_AddIntConstant(module, kinds[i].name, kinds[i].value) < 0) return -1;
  return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_engine", NULL, 0, functions,
                                        module_slots,          NULL,      NULL, NULL};

PyMODINIT_FUNC PyInit__engine(void) { return PyModuleDef_Init(&definition); }
