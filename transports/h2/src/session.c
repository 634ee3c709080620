#include <time.h>

#include "engine.h"

enum {
  /* Frames that cost work and carry none: a burst, refilled at a rate a second. */
  CONTROL_BURST = 1000,
  CONTROL_RATE = 200,
  /* And for each frame of an answer so many more: grpc-go measures its way with a PING for each. */
  CONTROL_EARNED = 2,
  MAX_ACKS = 100,
  SETTING_BYTES = 6,
  MAX_CONTINUATIONS = 8,
};

static int append(Session *self, int kind, int32_t id, PyObject *value) {
  if (value == NULL) return -1;
  PyObject *event = Py_BuildValue("iiN", kind, (int)id, value);
  if (event == NULL) return -1;
  int result = PyList_Append(self->events, event);
  Py_DECREF(event);
  return result;
}

static PyObject *or_none(PyObject *value) { return value != NULL ? value : Py_None; }

static PyObject *head_of(const Stream *stream) {
  return Py_BuildValue("OOOOO", or_none(stream->path), or_none(stream->method),
                       or_none(stream->content_type), or_none(stream->timeout),
                       or_none(stream->encoding));
}

/* What could have become one event is told in parts. */
int session_tell_opened(Session *self) {
  Stream *stream = self->opening;
  PyObject *first = self->first;
  self->opening = NULL;
  self->first = NULL;
  if (stream == NULL) return 0;
  int result = append(self, OPENED, stream->id, head_of(stream));
  if (first != NULL && result == 0) return append(self, MESSAGE, stream->id, first);
  Py_XDECREF(first);
  return result;
}

/* Steals the value; NULL is an error that was raised before. */
int session_event(Session *self, int kind, int32_t id, PyObject *value) {
  if (session_tell_opened(self) == 0) return append(self, kind, id, value);
  Py_XDECREF(value);
  return -1;
}

/* The end of a request that was opened and brought one message just before. */
int session_request(Session *self, Stream *stream) {
  PyObject *message = self->first;
  self->opening = NULL;
  self->first = NULL;
  stream_took(self, stream, (size_t)PyBytes_Size(message));
  int answered = answer_at_once(self, stream, message);
  if (answered != 0) {
    Py_DECREF(message);
    return answered < 0 ? -1 : 0;
  }
  return append(self, REQUEST, stream->id, Py_BuildValue("NN", head_of(stream), message));
}

int session_refuse(Session *self, Stream *stream, int code, const char *text) {
  stream->ignored = true;
  stream_drop_body(self, stream);
  return session_event(self, REFUSED, stream->id, Py_BuildValue("is", code, text));
}

static Stream *stream_of(Session *self, int32_t id) {
  return nghttp2.session_get_stream_user_data(self->session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Session *self = user;
  if (stream_of(self, frame->hd.stream_id) != NULL) return 0; /* trailers of the request */
  Stream *stream = stream_new(self, frame->hd.stream_id);
  if (stream == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
  return nghttp2.session_set_stream_user_data(session, stream->id, stream) == 0
           ? 0
           : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user) {
  (void)session, (void)flags;
  Session *self = user;
  Stream *stream = stream_of(self, frame->hd.stream_id);
  if (stream == NULL) return 0;
  return request_field(self, stream, name, name_size, value, value_size) < 0
           ? NGHTTP2_ERR_CALLBACK_FAILURE
           : 0;
}

static int open_stream(Session *self, Stream *stream) {
  stream->opened = true;
  if (stream->header_bytes > self->max_headers)
    return session_refuse(self, stream, RESOURCE_EXHAUSTED, "the request's metadata is too large");
  if (all_calls > MAX_ALL_CALLS && self->calls > FAIR_CALLS)
    return session_refuse(self, stream, RESOURCE_EXHAUSTED, "too many calls are open");
  if (session_tell_opened(self) < 0) return -1;
  self->opening = stream;
  return 0;
}

/* A request's first headers, or the trailers that end it. */
static int on_headers(Session *self, Stream *stream, uint8_t flags) {
  bool ends = flags & NGHTTP2_FLAG_END_STREAM;
  bool whole = stream->header_bytes > self->max_headers || request_is_whole(stream);
  if (stream->malformed || (stream->opened ? !ends : !whole))
    return request_malformed(self, stream);
  return stream->opened ? 0 : open_stream(self, stream);
}

/* Whether the peer may have one more frame of the kind that costs work and carries none. */
static bool allowed(Session *self, double cost) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  double now = (double)time.tv_sec + (double)time.tv_nsec / 1e9;
  self->allowance += (now - self->refilled) * CONTROL_RATE;
  if (self->allowance > CONTROL_BURST) self->allowance = CONTROL_BURST;
  self->refilled = now;
  if (self->allowance < cost) return false;
  self->allowance -= cost;
  return true;
}

static void earn(Session *self) {
  self->allowance += CONTROL_EARNED;
  if (self->allowance > CONTROL_BURST) self->allowance = CONTROL_BURST;
}

static int charge(Session *self, double cost) {
  if (cost == 0 || allowed(self, cost) || self->calmed) return 0;
  self->calmed = true;
  return nghttp2.session_terminate_session(self->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static double cost_of(const Session *self, const nghttp2_frame_hd *frame) {
  switch (frame->type) {
    case NGHTTP2_PING:
    case NGHTTP2_PRIORITY:
    case NGHTTP2_RST_STREAM: return 1;
    /* Each entry may move the windows of all streams. */
    case NGHTTP2_SETTINGS: return 1 + (double)frame->length / SETTING_BYTES;
    /* Padding brings nothing. */
    case NGHTTP2_DATA: return !self->carried && !(frame->flags & NGHTTP2_FLAG_END_STREAM);
    default: return 0;
  }
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Session *self = user;
  (void)session;
  if (charge(self, cost_of(self, &frame->hd)) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
  self->carried = false;
  if (self->calmed) return 0;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Stream *stream = stream_of(self, frame->hd.stream_id);
  if (stream == NULL) return 0;
  if (frame->hd.type == NGHTTP2_HEADERS && on_headers(self, stream, frame->hd.flags) < 0)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (stream->malformed) return 0;
  if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM && stream_end(self, stream) < 0)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t size, void *user) {
  (void)flags;
  Session *self = user;
  self->carried = size > 0;
  if (nghttp2.session_consume_connection(session, size) < 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
  Stream *stream = stream_of(self, id);
  if (stream == NULL) return 0;
  return stream_receive(self, stream, data, size) < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Session *self = user;
  if (frame->hd.type == NGHTTP2_DATA && frame->hd.length > 0) earn(self);
  /* A reset of ours is the answer to a breach, and costs like the peer's own. */
  if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
      charge(self, 1) != 0)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  bool carries = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
  if (!carries || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  Stream *stream = stream_of(self, frame->hd.stream_id);
  /* The answer is complete and the request is not: nobody needs the rest (RFC 9113, 8.1). */
  if (stream != NULL && !stream->ended &&
      nghttp2.submit_rst_stream(session, 0, stream->id, NGHTTP2_NO_ERROR) != 0)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
  Session *self = user;
  Stream *stream = stream_of(self, id);
  if (stream == NULL) return 0;
  int result = 0;
  if (stream->opened && !stream->quiet)
    result = session_event(self, CLOSED, id, PyLong_FromUnsignedLong(code));
  /* nghttp2 keeps its stream if this fails, and must not lead back here. */
  nghttp2.session_set_stream_user_data(session, id, NULL);
  stream_free(self, stream);
  return result < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

ssize_t session_read_message(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room,
                             uint32_t *flags, nghttp2_data_source *source, void *user) {
  (void)source;
  Stream *stream = stream_of(user, id);
  if (stream == NULL) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (stream->trailed) return NGHTTP2_ERR_DEFERRED;
  size_t filled = stream_fill(user, stream, buffer, room);
  if (stream->first == NULL && stream->finished) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (answer_trailers(session, stream) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
  } else if (filled == 0) {
    stream->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  return (ssize_t)filled;
}

nghttp2_session *session_open(Session *self, uint32_t max_streams, uint32_t window) {
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_option *option = NULL;
  nghttp2_session *session = NULL;
  if (nghttp2.session_callbacks_new(&callbacks) != 0 || nghttp2.option_new(&option) != 0) goto done;
  nghttp2.session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2.session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2.session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
  nghttp2.session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
  nghttp2.session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
  nghttp2.session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2.option_set_no_auto_window_update(option, 1);
  nghttp2.option_set_no_closed_streams(option, 1);
  /* request.c does that: grpc-go names a socket's path as its authority, which HTTP forbids. */
  nghttp2.option_set_no_http_messaging(option, 1);
  nghttp2.option_set_max_outbound_ack(option, MAX_ACKS);
  if (nghttp2.option_set_stream_reset_rate_limit != NULL)
    nghttp2.option_set_stream_reset_rate_limit(option, CONTROL_BURST, CONTROL_RATE);
  if (nghttp2.option_set_max_continuations != NULL)
    nghttp2.option_set_max_continuations(option, MAX_CONTINUATIONS);
  if (nghttp2.session_server_new2(&session, callbacks, self, option) != 0) goto done;
  nghttp2_settings_entry settings[] = {
    {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams},
    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
    {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)self->max_headers},
  };
  self->allowance = CONTROL_BURST;
  if (nghttp2.submit_settings(session, 0, settings, sizeof settings / sizeof *settings) != 0) {
    nghttp2.session_del(session);
    session = NULL;
  }
done:
  if (callbacks != NULL) nghttp2.session_callbacks_del(callbacks);
  if (option != NULL) nghttp2.option_del(option);
  return session;
}
