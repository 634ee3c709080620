/* Mutations that leave frames whole, so that more of them reach what lies behind the framing. The
 * other half of all inputs is mutated without any knowledge. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { DECISIONS = 3, HEAD = 9, MAX_FRAMES = 256 };

typedef struct {
  size_t at, size;
} Frame;

#define FRAME(length, type, flags, stream) "\0\0" length type flags "\0\0\0" stream
#define TEMPLATE(text) {text, sizeof(text) - 1}

/* Compressed by hand: POST, http, a path and what gRPC needs. */
#define REQUEST "\x83\x86\x04\x09/t.S/Echo\x0f\x10\x10" "application/grpc" "\0\x02te\x08trailers"
#define REFERRED "\x83\x86\x44\x09/t.S/Echo\x5f\x10" "application/grpc" "\x40\x02te\x08trailers"

static const struct {
  const char *text;
  size_t size;
} templates[] = {
  TEMPLATE(FRAME("\x2d", "\1", "\4", "\1") REQUEST),
  TEMPLATE(FRAME("\x2d", "\1", "\5", "\3") REQUEST),
  TEMPLATE(FRAME("\x2b", "\1", "\4", "\5") REFERRED),
  TEMPLATE(FRAME("\x05", "\1", "\4", "\7") "\x83\x86\xc0\xbf\xbe"),
  TEMPLATE(FRAME("\x0d", "\1", "\4", "\1") "\x83\x86\x04\x09/t.S/Echo"),
  TEMPLATE(FRAME("\x05", "\1", "\0", "\1") "\x83\x86\x04\x01/"),
  TEMPLATE(FRAME("\x09", "\x9", "\4", "\1") "\0\x03" "abc" "\x03" "def"),
  TEMPLATE(FRAME("\x13", "\1", "\5", "\1") "\0\x0c" "grpc-timeout" "\x04" "100m"),
  TEMPLATE(FRAME("\x14", "\1", "\4", "\1") "\0\x0e" "content-length" "\x03" "007"),
  TEMPLATE(FRAME("\x0a", "\0", "\1", "\1") "\0\0\0\0\x05hello"),
  TEMPLATE(FRAME("\x0a", "\0", "\0", "\3") "\0\0\0\0\x05hello"),
  TEMPLATE(FRAME("\x0f", "\0", "\0", "\5") "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
  TEMPLATE(FRAME("\x0d", "\0", "\x9", "\1") "\x02\0\0\0\0\x05hello\0\0"),
  TEMPLATE(FRAME("\x05", "\0", "\0", "\1") "\0\0\0\x10\0"),
  TEMPLATE(FRAME("\x05", "\0", "\0", "\1") "\1\0\0\0\1"),
  TEMPLATE(FRAME("\0", "\0", "\1", "\1")),
  TEMPLATE(FRAME("\x01", "\0", "\x8", "\1") "\0"),
  TEMPLATE(FRAME("\x05", "\2", "\0", "\3") "\0\0\0\1\x10"),
  TEMPLATE(FRAME("\x04", "\3", "\0", "\1") "\0\0\0\x8"),
  TEMPLATE(FRAME("\0", "\4", "\0", "\0")),
  TEMPLATE(FRAME("\0", "\4", "\1", "\0")),
  TEMPLATE(FRAME("\x06", "\4", "\0", "\0") "\0\4\0\0\0\0"),
  TEMPLATE(FRAME("\x06", "\4", "\0", "\0") "\0\4\x7f\xff\xff\xff"),
  TEMPLATE(FRAME("\x0c", "\4", "\0", "\0") "\0\1\0\0\0\0\0\5\0\0\x40\0"),
  TEMPLATE(FRAME("\x08", "\6", "\0", "\0") "12345678"),
  TEMPLATE(FRAME("\x08", "\7", "\0", "\0") "\0\0\0\1\0\0\0\0"),
  TEMPLATE(FRAME("\x04", "\x8", "\0", "\0") "\0\1\0\0"),
  TEMPLATE(FRAME("\x04", "\x8", "\0", "\1") "\x7f\xff\xff\xff"),
  TEMPLATE(FRAME("\x04", "\x8", "\0", "\1") "\0\0\0\x0a"),
};

enum { TEMPLATES = sizeof templates / sizeof *templates };

static uint32_t state;

static uint32_t draw(uint32_t below) {
  state = state * 1664525u + 1013904223u;
  return (state >> 16) % below;
}

static size_t frames_of(const uint8_t *data, size_t size, Frame *frames) {
  size_t count = 0, at = DECISIONS;
  while (at + HEAD <= size && count < MAX_FRAMES) {
    size_t length = (size_t)data[at] << 16 | (size_t)data[at + 1] << 8 | data[at + 2];
    if (at + HEAD + length > size) break;
    frames[count++] = (Frame){at, HEAD + length};
    at += HEAD + length;
  }
  return count;
}

/* Puts other bytes in the place of some; returns the new size, or the old if there is no room. */
static size_t replace(uint8_t *data, size_t size, size_t max_size, size_t at, size_t old,
                      const void *text, size_t length) {
  if (size - old + length > max_size) return size;
  memmove(data + at + length, data + at + old, size - at - old);
  memcpy(data + at, text, length);
  return size - old + length;
}

static size_t mutate_payload(uint8_t *data, size_t size, size_t max_size, Frame frame) {
  uint8_t payload[4096];
  size_t length = frame.size - HEAD;
  if (length > sizeof payload / 2) return size;
  memcpy(payload, data + frame.at + HEAD, length);
  size_t changed = LLVMFuzzerMutate(payload, length, length + 64);
  size_t result = replace(data, size, max_size, frame.at + HEAD, length, payload, changed);
  if (result != size || changed == length)
    data[frame.at + 1] = (uint8_t)(changed >> 8), data[frame.at + 2] = (uint8_t)changed;
  return result;
}

static size_t mutate_frames(uint8_t *data, size_t size, size_t max_size) {
  Frame frames[MAX_FRAMES];
  size_t count = frames_of(data, size, frames);
  size_t kind = count == 0 ? 0 : draw(8);
  Frame frame = count ? frames[draw((uint32_t)count)] : (Frame){DECISIONS, 0};
  uint8_t copy[4096];
  switch (kind) {
    case 0:
    case 1: {
      size_t chosen = draw(TEMPLATES);
      return replace(data, size, max_size, frame.at, 0, templates[chosen].text,
                     templates[chosen].size);
    }
    case 2:
      if (frame.size > sizeof copy) return size;
      memcpy(copy, data + frame.at, frame.size);
      return replace(data, size, max_size, frames[draw((uint32_t)count)].at, 0, copy, frame.size);
    case 3: return replace(data, size, max_size, frame.at, frame.size, "", 0);
    case 4: data[frame.at + 3] = (uint8_t)draw(11); return size;
    case 5: data[frame.at + 4] ^= (uint8_t)(1u << draw(8)); return size;
    case 6: data[frame.at + 8] = (uint8_t)draw(12); return size;
    default: return mutate_payload(data, size, max_size, frame);
  }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  state = seed;
  if (size < DECISIONS || draw(2)) return LLVMFuzzerMutate(data, size, max_size);
  if (draw(8) == 0) data[draw(DECISIONS)] = (uint8_t)draw(256);
  for (uint32_t times = 1 + draw(3); times > 0; times--)
    size = mutate_frames(data, size, max_size);
  return size;
}
