#include "text_stream.h"

#include <string.h>

/* Where the first stop text begins in what is not certain, or the end of the text. */
static size_t find_stop(const TextStream *stream) {
  const Buffer *text = &stream->text;
  for (size_t at = stream->certain; at < text->size; at++) {
    for (size_t i = 0; i < stream->stop_count; i++) {
      const Stop *stop = &stream->stops[i];
      if (stop->size <= text->size - at && memcmp(text->data + at, stop->text, stop->size) == 0) return at;
    }
  }
  return text->size;
}

/* Whether the text from a place to its end is the beginning of a stop text. */
static bool may_become_stop(const TextStream *stream, size_t at) {
  const Buffer *text = &stream->text;
  for (size_t i = 0; i < stream->stop_count; i++) {
    const Stop *stop = &stream->stops[i];
    if (text->size - at < stop->size && memcmp(stop->text, text->data + at, text->size - at) == 0) return true;
  }
  return false;
}

static void settle(TextStream *stream) {
  size_t found = find_stop(stream);
  if (found < stream->text.size) {
    stream->stopped = true;
    stream->text.size = stream->certain = found;
    return;
  }
  while (stream->certain < stream->text.size && !may_become_stop(stream, stream->certain)) stream->certain++;
}

void text_stream_add(TextStream *stream, int64_t token) {
  text_output_add(&stream->output, token, &stream->text);
  settle(stream);
}

void text_stream_finish(TextStream *stream) {
  if (stream->stopped) return;
  text_output_finish(&stream->output, &stream->text);
  settle(stream);
  if (!stream->stopped) stream->certain = stream->text.size;
}
