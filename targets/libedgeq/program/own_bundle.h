/* A bundle that is part of this program: `edgeq pack --executable` puts it at the end of the file. */
#ifndef EDGEQ_OWN_BUNDLE_H
#define EDGEQ_OWN_BUNDLE_H

/* Path of this program if a bundle is at its end, else NULL. */
const char *own_bundle(void);

#endif
