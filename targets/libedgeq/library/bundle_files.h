/* The files that a manifest lists: found, compared with their digests, and kept where the model needs them. */
#ifndef EDGEQ_BUNDLE_FILES_H
#define EDGEQ_BUNDLE_FILES_H

#include "source.h"
#include "json.h"

typedef struct {
  Mapping weights, golden, tokenizer; /* of no bytes where there is no such file */
  const char *code;                   /* a copy: what was compared is what runs */
  size_t code_size;
} BundleFiles;

/* Maps manifest.json for as long as `memory` lasts and compares it with manifest.sha256. */
const Mapping *map_manifest(Memory *memory, Memory *scratch, const Source *source);

/* Every file that the manifest lists must be there, of the size and (unless `options` says otherwise) the digest that it
 * says. `code` is the name of the code file. What the model keeps is mapped as long as `memory` lasts. */
BundleFiles read_files(Memory *memory, Memory *scratch, const Source *source, const Json *json, const char *code,
                       const edgeq_open_options *options);

#endif
