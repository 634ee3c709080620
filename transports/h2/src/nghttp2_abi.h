/* The part of libnghttp2's binary interface (soname 14, stable since 2016) that is used here, so
 * that building needs no header of it. tests/test_abi.py holds it against the real header. */
#ifndef NGHTTP2_ABI_H
#define NGHTTP2_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct nghttp2_session nghttp2_session;
typedef struct nghttp2_option nghttp2_option;
typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;

typedef struct {
  size_t length;
  int32_t stream_id;
  uint8_t type;
  uint8_t flags;
  uint8_t reserved;
} nghttp2_frame_hd;

typedef struct {
  nghttp2_frame_hd hd;
  uint32_t error_code;
} nghttp2_rst_stream;

/* Every member of the real union begins with the frame header. */
typedef union {
  nghttp2_frame_hd hd;
  nghttp2_rst_stream rst_stream;
} nghttp2_frame;

typedef struct {
  uint8_t *name;
  uint8_t *value;
  size_t namelen;
  size_t valuelen;
  uint8_t flags;
} nghttp2_nv;

typedef struct {
  int32_t settings_id;
  uint32_t value;
} nghttp2_settings_entry;

typedef union {
  int fd;
  void *ptr;
} nghttp2_data_source;

typedef ssize_t (*nghttp2_data_source_read_callback)(nghttp2_session *, int32_t, uint8_t *, size_t,
                                                     uint32_t *, nghttp2_data_source *, void *);

typedef struct {
  nghttp2_data_source source;
  nghttp2_data_source_read_callback read_callback;
} nghttp2_data_provider;

enum {
  NGHTTP2_DATA = 0,
  NGHTTP2_HEADERS = 1,
  NGHTTP2_PRIORITY = 2,
  NGHTTP2_RST_STREAM = 3,
  NGHTTP2_SETTINGS = 4,
  NGHTTP2_PING = 6,

  NGHTTP2_FLAG_END_STREAM = 0x01,

  NGHTTP2_DATA_FLAG_EOF = 0x01,
  NGHTTP2_DATA_FLAG_NO_END_STREAM = 0x02,

  NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS = 0x03,
  NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE = 0x04,
  NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE = 0x06,

  NGHTTP2_NO_ERROR = 0x00,
  NGHTTP2_PROTOCOL_ERROR = 0x01,
  NGHTTP2_ENHANCE_YOUR_CALM = 0x0b,

  NGHTTP2_ERR_DEFERRED = -508,
  NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE = -521,
  NGHTTP2_ERR_CALLBACK_FAILURE = -902,
};

typedef int (*nghttp2_on_begin_headers_callback)(nghttp2_session *, const nghttp2_frame *, void *);
typedef int (*nghttp2_on_header_callback)(nghttp2_session *, const nghttp2_frame *,
                                          const uint8_t *, size_t, const uint8_t *, size_t,
                                          uint8_t, void *);
typedef int (*nghttp2_on_frame_callback)(nghttp2_session *, const nghttp2_frame *, void *);
typedef int (*nghttp2_on_data_chunk_recv_callback)(nghttp2_session *, uint8_t, int32_t,
                                                   const uint8_t *, size_t, void *);
typedef int (*nghttp2_on_stream_close_callback)(nghttp2_session *, int32_t, uint32_t, void *);

/* X(return type, name, parameters) */
#define NGHTTP2_FUNCTIONS(X)                                                                       \
  X(int, session_callbacks_new, (nghttp2_session_callbacks **))                                    \
  X(void, session_callbacks_del, (nghttp2_session_callbacks *))                                    \
  X(void, session_callbacks_set_on_begin_headers_callback,                                         \
    (nghttp2_session_callbacks *, nghttp2_on_begin_headers_callback))                              \
  X(void, session_callbacks_set_on_header_callback,                                                \
    (nghttp2_session_callbacks *, nghttp2_on_header_callback))                                     \
  X(void, session_callbacks_set_on_frame_recv_callback,                                            \
    (nghttp2_session_callbacks *, nghttp2_on_frame_callback))                                      \
  X(void, session_callbacks_set_on_frame_send_callback,                                            \
    (nghttp2_session_callbacks *, nghttp2_on_frame_callback))                                      \
  X(void, session_callbacks_set_on_data_chunk_recv_callback,                                       \
    (nghttp2_session_callbacks *, nghttp2_on_data_chunk_recv_callback))                            \
  X(void, session_callbacks_set_on_stream_close_callback,                                          \
    (nghttp2_session_callbacks *, nghttp2_on_stream_close_callback))                               \
  X(int, option_new, (nghttp2_option **))                                                          \
  X(void, option_del, (nghttp2_option *))                                                          \
  X(void, option_set_no_auto_window_update, (nghttp2_option *, int))                               \
  X(void, option_set_no_closed_streams, (nghttp2_option *, int))                                   \
  X(void, option_set_no_http_messaging, (nghttp2_option *, int))                                   \
  X(void, option_set_max_outbound_ack, (nghttp2_option *, size_t))                                 \
  X(int, session_server_new2,                                                                      \
    (nghttp2_session **, const nghttp2_session_callbacks *, void *, const nghttp2_option *))       \
  X(void, session_del, (nghttp2_session *))                                                        \
  X(ssize_t, session_mem_recv, (nghttp2_session *, const uint8_t *, size_t))                       \
  X(ssize_t, session_mem_send, (nghttp2_session *, const uint8_t **))                              \
  X(int, session_want_read, (nghttp2_session *))                                                   \
  X(int, session_want_write, (nghttp2_session *))                                                  \
  X(int, session_consume_connection, (nghttp2_session *, size_t))                                  \
  X(int, session_consume_stream, (nghttp2_session *, int32_t, size_t))                             \
  X(int, session_set_stream_user_data, (nghttp2_session *, int32_t, void *))                       \
  X(void *, session_get_stream_user_data, (nghttp2_session *, int32_t))                            \
  X(int, session_resume_data, (nghttp2_session *, int32_t))                                        \
  X(int, session_terminate_session, (nghttp2_session *, uint32_t))                                 \
  X(int32_t, session_get_last_proc_stream_id, (nghttp2_session *))                                 \
  X(int, submit_settings, (nghttp2_session *, uint8_t, const nghttp2_settings_entry *, size_t))    \
  X(int, submit_response,                                                                          \
    (nghttp2_session *, int32_t, const nghttp2_nv *, size_t, const nghttp2_data_provider *))       \
  X(int, submit_trailer, (nghttp2_session *, int32_t, const nghttp2_nv *, size_t))                 \
  X(int, submit_rst_stream, (nghttp2_session *, uint8_t, int32_t, uint32_t))                       \
  X(int, submit_shutdown_notice, (nghttp2_session *))                                              \
  X(int, submit_goaway,                                                                            \
    (nghttp2_session *, uint8_t, int32_t, uint32_t, const uint8_t *, size_t))                      \
  X(int, check_header_name, (const uint8_t *, size_t))                                             \
  X(int, check_header_value, (const uint8_t *, size_t))                                            \
  X(const char *, strerror, (int))

/* Newer than the soname: fixes of CVE-2023-44487 and CVE-2024-28182, absent on old systems. */
#define NGHTTP2_OPTIONAL_FUNCTIONS(X)                                                              \
  X(void, option_set_stream_reset_rate_limit, (nghttp2_option *, uint64_t, uint64_t))              \
  X(void, option_set_max_continuations, (nghttp2_option *, size_t))

#define DECLARE(result, name, parameters) result(*name) parameters;
typedef struct {
  NGHTTP2_FUNCTIONS(DECLARE)
  NGHTTP2_OPTIONAL_FUNCTIONS(DECLARE)
} Nghttp2;
#undef DECLARE

#endif
