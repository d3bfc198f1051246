/* SPDX-License-Identifier: MIT */
/*
 * What the agent says, as JSON (the Target of interface org.firn.Agent).
 */
#ifndef FIRN_AGENT_JSON_H
#define FIRN_AGENT_JSON_H

#include <json-c/json.h>

#include "agent/select.h"
#include "engine/engine.h"

/* A Target, to be sent: an object that has its text and no fields.  The caller owns it. */
struct json_object *firn_json_report(const struct firn_report *r);

/* The same, with the sentence that says why it was chosen; NULL: nobody did. */
struct json_object *firn_json_report_why(const struct firn_report *r, const char *why);

/* What a request names: the one member of @o that is a selector.  Returns 0, or -EINVAL, with *@e where it is known why:
 * else @o is not of the interface. */
int firn_json_selector(struct json_object *o, struct firn_select *ret, struct firn_err *e);

/* A member of @o that is a pid; 0 where it is none. */
pid_t firn_json_pid(struct json_object *o, const char *key);

/* Do @parameters (may be NULL) ask for a dry run?  Whatever is not the boolean false does: who meant to change nothing
 * and wrote it wrongly is not to be surprised. */
bool firn_json_dry_run(struct json_object *parameters);

/* Parameters of error Failed. */
struct json_object *firn_json_trouble(const struct firn_err *e);

#endif
