/* Drives the engine with a client's bytes as libFuzzer makes them, and with a server that takes its
 * decisions from the same input; run.py builds it with sanitizers. The input is three bytes of
 * decisions and then what the client sends. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHOULD(condition)                                                                          \
  if (!(condition)) {                                                                              \
    fprintf(stderr, "should hold: %s\n", #condition);                                              \
    abort();                                                                                       \
  }

PyMODINIT_FUNC PyInit__engine(void);

enum {
  RAW = 1,
  NO_MEMORY = 2,
  TIGHT = 4,
  BYTEWISE = 8,
  UNREAD = 16,
  DROPPED = 32,
  KNOWN = 64,
  SOCKET = 128,
};
enum { DECISIONS = 3, STREAMS = 64, MESSAGES = 8, ANSWERS = 6 };
enum { OPENED, MESSAGE, ENDED, REFUSED, CLOSED, REQUEST };
enum { HEARD, FLOWS, RESTS, BROKEN, GONE };

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static PyObject *session_type, *account_type, *sockets_type, *get_held, *known, *on_due;
static PyObject *keywords[2], *none_tuple, *trailers, *answers[ANSWERS];

/* --- memory that runs out, once an input */

static long allocations_left;

static bool runs_out(void) { return allocations_left > 0 && --allocations_left == 0; }

void *fuzz_malloc(size_t size) { return runs_out() ? NULL : malloc(size); }
void *fuzz_calloc(size_t count, size_t size) { return runs_out() ? NULL : calloc(count, size); }
void *fuzz_realloc(void *old, size_t size) { return runs_out() ? NULL : realloc(old, size); }

static void *py_malloc(void *context, size_t size) {
  (void)context;
  return fuzz_malloc(size ? size : 1);
}
static void *py_calloc(void *context, size_t count, size_t size) {
  (void)context;
  return count && size ? fuzz_calloc(count, size) : fuzz_calloc(1, 1);
}
static void *py_realloc(void *context, void *old, size_t size) {
  (void)context;
  return fuzz_realloc(old, size ? size : 1);
}
static void py_free(void *context, void *old) {
  (void)context;
  free(old);
}

/* --- the server */

typedef struct {
  PyObject *session, *account, *sockets, *wire;
  /* The server's end of the connection, and the client's. */
  int ends[2];
  uint32_t random;
  uint8_t flags;
  bool dead;
  /* What was heard of each stream; by number, so that a stream may be forgotten. */
  struct {
    bool opened, ended, refused, closed, spoken, quiet;
    size_t waiting[MESSAGES], count;
  } streams[STREAMS];
} Server;

static uint32_t draw(Server *server, uint32_t below) {
  server->random = server->random * 1664525u + 1013904223u;
  return (server->random >> 16) % below;
}

/* A call may fail for want of memory only, or because the connection is broken. */
static PyObject *checked(Server *server, PyObject *result) {
  if (result != NULL) return result;
  SHOULD(PyErr_Occurred());
  if (!PyErr_ExceptionMatches(PyExc_MemoryError) && !PyErr_ExceptionMatches(PyExc_ConnectionError)) {
    PyErr_Print();
    abort();
  }
  PyErr_Clear();
  server->dead = true;
  return NULL;
}

#define CALL(server, ...) checked(server, PyObject_CallMethod((server)->session, __VA_ARGS__))

static void ignore(PyObject *result) { Py_XDECREF(result); }

static void take(Server *server, int id, size_t slot) {
  size_t count = server->streams[slot].count;
  if (count == 0) return;
  ignore(CALL(server, "took", "in", id, (Py_ssize_t)server->streams[slot].waiting[count - 1]));
  server->streams[slot].count--;
}

static void speak(Server *server, int id, size_t slot) {
  PyObject *message = answers[draw(server, ANSWERS)];
  uint32_t kind = draw(server, 8);
  switch (kind) {
    case 0:
    case 1: {
      /* Of a call that is gone the end may be on its way. */
      PyObject *waiting = CALL(server, "queued", "i", id);
      bool lives = waiting != NULL && PyLong_AsLong(waiting) >= 0;
      ignore(waiting);
      PyObject *taken = CALL(server, "reply", "iO", id, message);
      if (taken == Py_True && lives && !server->streams[slot].spoken) server->streams[slot].quiet = true;
      ignore(taken);
      break;
    }
    case 2:
    case 3: ignore(CALL(server, "message", "iO", id, message)); break;
    case 4: ignore(CALL(server, "finish", "iOi", id, trailers, (int)draw(server, 2))); break;
    case 5: ignore(CALL(server, "finish", "iOis", id, none_tuple, 0, "405")); break;
    case 6: ignore(CALL(server, "reset", "iI", id, draw(server, 14))); break;
    default: ignore(CALL(server, "queued", "i", id));
  }
  if (kind < 6) server->streams[slot].spoken = true;
}

static void heed_opened(Server *server, size_t slot, PyObject *head) {
  SHOULD(!server->streams[slot].opened && PyTuple_Size(head) == 5);
  SHOULD(PyBytes_Check(PyTuple_GetItem(head, 0)) && PyBytes_Check(PyTuple_GetItem(head, 1)));
  PyObject *timeout = PyTuple_GetItem(head, 3);
  SHOULD(timeout == Py_None || PyFloat_Check(timeout));
  server->streams[slot].opened = true;
}

/* What a call hears comes in the right order, and nothing comes after its end. */
static void heed_one(Server *server, int kind, int id, PyObject *value) {
  SHOULD(id > 0 && id % 2 == 1);
  size_t slot = (size_t)id / 2;
  if (slot >= STREAMS) {
    if (kind == REFUSED) ignore(CALL(server, "finish", "iOi", id, trailers, 1));
    return;
  }
  SHOULD(!server->streams[slot].closed);
  SHOULD(kind == OPENED || kind == REQUEST || kind == REFUSED || kind == CLOSED ||
         server->streams[slot].opened);
  switch (kind) {
    case REQUEST:
      SHOULD(PyTuple_Size(value) == 2 && PyBytes_Check(PyTuple_GetItem(value, 1)));
      heed_opened(server, slot, PyTuple_GetItem(value, 0));
      server->streams[slot].ended = true;
      speak(server, id, slot);
      break;
    case OPENED:
      heed_opened(server, slot, value);
      if (draw(server, 4) == 0) speak(server, id, slot);
      break;
    case MESSAGE:
      SHOULD(!server->streams[slot].ended && !server->streams[slot].refused);
      if (server->streams[slot].count < MESSAGES)
        server->streams[slot].waiting[server->streams[slot].count++] = (size_t)PyBytes_Size(value);
      if (draw(server, 2)) take(server, id, slot);
      if (draw(server, 3) == 0) speak(server, id, slot);
      break;
    case ENDED:
      SHOULD(!server->streams[slot].ended && !server->streams[slot].refused);
      server->streams[slot].ended = true;
      take(server, id, slot);
      speak(server, id, slot);
      break;
    case REFUSED:
      SHOULD(!server->streams[slot].refused && !server->streams[slot].ended);
      server->streams[slot].refused = server->streams[slot].spoken = true;
      ignore(CALL(server, "finish", "iOi", id, trailers, 1));
      break;
    default:
      SHOULD(kind == CLOSED && !server->streams[slot].quiet);
      server->streams[slot].closed = true;
  }
}

static void heed(Server *server, PyObject *events) {
  if (events == NULL) return;
  for (Py_ssize_t i = 0; i < PyList_Size(events); i++) {
    PyObject *event = PyList_GetItem(events, i);
    heed_one(server, (int)PyLong_AsLong(PyTuple_GetItem(event, 0)),
             (int)PyLong_AsLong(PyTuple_GetItem(event, 1)), PyTuple_GetItem(event, 2));
    if (PyErr_Occurred()) PyErr_Clear(); /* a number for which there was no memory */
  }
  Py_DECREF(events);
}

static void held(Py_ssize_t *calls, Py_ssize_t *requests, Py_ssize_t *answers) {
  long left = allocations_left;
  allocations_left = 0;
  PyObject *all = PyObject_CallNoArgs(get_held);
  SHOULD(all != NULL && PyArg_ParseTuple(all, "nnn", calls, requests, answers));
  Py_DECREF(all);
  allocations_left = left;
}

static void is_bounded(const Server *server) {
  Py_ssize_t calls, requests, answers;
  held(&calls, &requests, &answers);
  SHOULD(calls <= STREAMS + 64); /* as many as are allowed, and those that are being refused */
  SHOULD(requests >= 0 && answers >= 0);
  SHOULD(requests <= (server->flags & TIGHT ? 2000 : 1000000) + 16384 + 64);
}

/* --- the same over a socket */

static void heed_notices(Server *server, PyObject *notices) {
  if (notices == NULL) return;
  for (Py_ssize_t i = 0; i < PyList_Size(notices); i++) {
    PyObject *notice = PyList_GetItem(notices, i), *value = PyTuple_GetItem(notice, 2);
    long what = PyLong_AsLong(PyTuple_GetItem(notice, 1));
    SHOULD(PyTuple_GetItem(notice, 0) == Py_None && what >= HEARD && what <= GONE);
    if (what == HEARD) heed(server, Py_NewRef(value));
    else if (what != RESTS && what != FLOWS) server->dead = true;
  }
  Py_DECREF(notices);
}

static void read_all(Server *server) {
  static char bytes[64 * 1024];
  if (server->flags & UNREAD) return;
  while (recv(server->ends[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0) {}
}

/* What is said to many calls. */
static void announce(Server *server) {
  for (int id = 1; id < STREAMS && !server->dead; id += 2) {
    if (!server->streams[id / 2].opened || draw(server, 2)) continue;
    PyObject *sender =
      checked(server, PyObject_CallMethod(server->wire, "sender", "in", id, (Py_ssize_t)65536));
    if (sender == NULL) return;
    PyObject *said = PyObject_CallMethod(sender, "say", "O", answers[draw(server, ANSWERS)]);
    SHOULD(said != NULL || PyErr_ExceptionMatches(PyExc_MemoryError)); /* for want of arguments */
    PyErr_Clear();
    if (said == Py_True) server->streams[id / 2].spoken = true;
    ignore(said);
    Py_DECREF(sender);
  }
  if (!server->dead)
    heed_notices(server, checked(server, PyObject_CallMethod(server->sockets, "flush", NULL)));
}

static bool connect_ends(Server *server) {
  SHOULD(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, server->ends) == 0);
  int room = server->flags & TIGHT ? 1 : 64 * 1024;
  SHOULD(setsockopt(server->ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
  server->sockets = checked(server, PyObject_CallFunctionObjArgs(sockets_type, on_due, NULL));
  if (server->sockets == NULL) return false;
  server->wire = checked(server, PyObject_CallMethod(server->sockets, "add", "iOO", server->ends[0],
                                                     server->session, Py_None));
  return server->wire != NULL;
}

static void disconnect(Server *server) {
  if (server->wire != NULL) ignore(PyObject_CallMethod(server->wire, "close", NULL));
  PyErr_Clear();
  for (int i = 0; i < 2; i++)
    if (server->ends[i] >= 0) close(server->ends[i]);
  Py_XDECREF(server->wire);
  Py_XDECREF(server->sockets);
}

static void talk(Server *server, const uint8_t *data, size_t size, size_t step) {
  if (!connect_ends(server)) return;
  if (!(server->flags & RAW)) SHOULD(send(server->ends[1], PREFACE, sizeof PREFACE - 1, 0) > 0);
  while (!server->dead) {
    size_t part = size < step ? size : step;
    /* A client may go in the middle, whatever it has left unread. */
    if (part > 0 && send(server->ends[1], data, part, MSG_NOSIGNAL) > 0) data += part, size -= part;
    else if (draw(server, 2)) shutdown(server->ends[1], SHUT_RDWR);
    heed_notices(server, checked(server, PyObject_CallMethod(server->sockets, "look", NULL)));
    if (server->dead) return;
    is_bounded(server);
    ignore(checked(server, PyObject_CallMethod(server->wire, "flush", NULL)));
    heed(server, server->dead ? NULL : CALL(server, "events", NULL));
    if (!server->dead && draw(server, 4) == 0) announce(server);
    if (draw(server, 8) == 0)
      ignore(checked(server, PyObject_CallMethod(server->wire, "read", "i", (int)draw(server, 4) > 0)));
    if (draw(server, 2)) read_all(server);
    if (part == 0) break;
  }
}

static void converse(Server *server, const uint8_t *data, size_t size, size_t step) {
  while (size > 0 && !server->dead) {
    size_t part = size < step ? size : step;
    heed(server, CALL(server, "receive", "y#", (const char *)data, (Py_ssize_t)part));
    is_bounded(server);
    data += part, size -= part;
    for (int i = 0; i < 4 && !server->dead && !(server->flags & UNREAD); i++) {
      PyObject *sent = CALL(server, "send", "i", 65536);
      bool more = sent != NULL && PyBytes_Size(sent) > 0;
      ignore(sent);
      heed(server, server->dead ? NULL : CALL(server, "events", NULL));
      if (!more) break;
    }
  }
  /* Calls that wait are answered later, whatever has become of them. */
  for (int id = 1; id < STREAMS; id += 2)
    if (server->streams[id / 2].opened && draw(server, 2)) speak(server, id, (size_t)id / 2);
  if (draw(server, 4) == 0) ignore(CALL(server, "go_away", "i", (int)draw(server, 2)));
  ignore(CALL(server, "send", "i", 65536));
  heed(server, CALL(server, "events", NULL));
}

/* Answers that are given at once to the first calls. */
static void serve(Server *server) {
  server->account = PyObject_CallNoArgs(account_type);
  PyObject *credit = PyLong_FromLong(draw(server, 8)), *until = PyFloat_FromDouble(1e18);
  SHOULD(server->account != NULL && PyObject_SetAttrString(server->account, "credit", credit) == 0);
  SHOULD(PyObject_SetAttrString(server->account, "credit_until", until) == 0);
  Py_DECREF(credit);
  Py_DECREF(until);
  ignore(CALL(server, "serve", "OO", known, server->account));
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  PyPreConfig early;
  PyPreConfig_InitIsolatedConfig(&early);
  early.allocator = PYMEM_ALLOCATOR_MALLOC; /* so that the sanitizer sees each object */
  SHOULD(!PyStatus_Exception(Py_PreInitialize(&early)));
  PyImport_AppendInittab("_engine", PyInit__engine);
  PyConfig config;
  PyConfig_InitIsolatedConfig(&config);
  config.site_import = 0;
  SHOULD(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
  PyConfig_Clear(&config);
  PyObject *engine = PyImport_ImportModule("_engine");
  if (engine == NULL) PyErr_Print();
  SHOULD(engine != NULL);
  session_type = PyObject_GetAttrString(engine, "Session");
  get_held = PyObject_GetAttrString(engine, "held");
  account_type = PyObject_GetAttrString(engine, "Account");
  sockets_type = PyObject_GetAttrString(engine, "Sockets");
  on_due = (PyObject *)&PyBaseObject_Type;
  for (int tight = 0; tight < 2; tight++)
    keywords[tight] =
      Py_BuildValue("{s:i,s:i,s:i,s:i,s:i,s:i}", "max_message_bytes", tight ? 1000 : 100000,
                    "max_header_bytes", tight ? 300 : 16384, "max_buffered_bytes",
                    tight ? 2000 : 1000000, "max_unread_bytes", tight ? 2000 : 1000000,
                    "max_streams", tight ? 3 : STREAMS, "window_bytes", tight ? 100 : 65536);
  none_tuple = PyTuple_New(0);
  trailers = Py_BuildValue("((yy)(yy))", "grpc-status", "5", "grpc-message", "gone");
  static const Py_ssize_t sizes[ANSWERS] = {0, 1, 100, 5000, 16379, 70000};
  for (int i = 0; i < ANSWERS; i++) {
    answers[i] = PyBytes_FromStringAndSize(NULL, sizes[i]);
    memset(PyBytes_AS_STRING(answers[i]), 'a', (size_t)sizes[i]);
  }
  PyObject *table = Py_BuildValue("{y:O,y:O}", "hello", answers[3], "", answers[0]);
  PyObject *method = PyObject_CallMethod(engine, "Answers", "O", table);
  known = Py_BuildValue("{y:O}", "/t.S/Echo", method);
  SHOULD(known != NULL);
  PyMemAllocatorEx failing = {NULL, py_malloc, py_calloc, py_realloc, py_free};
  PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &failing);
  PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &failing);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < DECISIONS) return -1;
  Server server = {.ends = {-1, -1}, .random = data[1] | (uint32_t)data[2] << 8, .flags = data[0]};
  server.session = PyObject_Call(session_type, none_tuple, keywords[(data[0] & TIGHT) != 0]);
  SHOULD(server.session != NULL);
  if (server.flags & KNOWN) serve(&server);
  if (!(server.flags & (RAW | SOCKET)))
    heed(&server, CALL(&server, "receive", "y#", PREFACE, (Py_ssize_t)sizeof PREFACE - 1));
  if (server.flags & NO_MEMORY) allocations_left = 1 + data[2];
  size_t step = server.flags & BYTEWISE ? 1 + data[1] % 20 : 4096;
  (server.flags & SOCKET ? talk : converse)(&server, data + DECISIONS, size - DECISIONS, step);
  allocations_left = 0;
  disconnect(&server);
  if (server.flags & DROPPED) ignore(CALL(&server, "close", NULL));
  Py_DECREF(server.session);
  Py_XDECREF(server.account);
  Py_ssize_t calls, requests, answers;
  held(&calls, &requests, &answers);
  SHOULD(calls == 0 && requests == 0 && answers == 0);
  SHOULD(!PyErr_Occurred());
  return 0;
}
