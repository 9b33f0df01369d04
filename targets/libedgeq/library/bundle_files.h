/* The files that a manifest lists: found, compared with their digests or ready to be, and kept where the model needs
 * them. */
#ifndef EDGEQ_BUNDLE_FILES_H
#define EDGEQ_BUNDLE_FILES_H

#include "checked_file.h"
#include "elf.h"
#include "json.h"

typedef struct {
  CheckedFile weights, golden, tokenizer; /* of no bytes where there is no such file */
  Elf *code; /* a copy: what was compared is what runs; NULL if kernels are linked in */
} BundleFiles;

/* Maps manifest.json for as long as `memory` lasts and compares it with manifest.sha256. */
const Mapping *map_manifest(Memory *memory, Memory *scratch, const Source *source);

/* Every file that the model uses must be there, of the size that the manifest says. Code and tokenizer are compared with
 * their CRC-32, weights and golden data are when they are used; or all files of the manifest are compared with their
 * SHA-256, see edgeq_open. `code` is the name of the code file. What the model keeps is mapped as long as `memory` lasts. */
BundleFiles read_files(Memory *memory, Memory *scratch, const Source *source, const Json *json, const char *code,
                       const edgeq_open_options *options);

#endif
