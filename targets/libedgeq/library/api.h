/* How the functions of edgeq.h run what they do. */
#ifndef EDGEQ_API_H
#define EDGEQ_API_H

#include "session.h"

/* Runs `body` as a call of a session: refuses a second thread, and brings a failure anywhere below back as a status. */
edgeq_status run_call(edgeq_session *session, void (*body)(void *argument), void *argument);

#endif
